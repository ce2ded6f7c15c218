/**
 * The connection as a transactional handler has it: one of ours, for as long as the handler runs. Whoever is given the
 * connection next has nothing to do with what an earlier handler left behind, so that one gets a stand-in, which throws
 * POSTHORN_INVALID_TRANSACTION once the loan is over. It refuses what would end the transaction or the connection, as
 * far as that can be told from a statement's text; see handler-transactions.ts for what cannot.
 *
 * Values are read as `pg` reads them by default, and not as the engine reads its own.
 */
import pg from 'pg'
import { PosthornError } from '../../../errors.ts'

type Callback = (error: Error | null | undefined, result: unknown) => void
type Query = (this: unknown, ...values: unknown[]) => unknown

const REFUSED: ReadonlySet<PropertyKey> = new Set(['connect', 'end', 'release', 'setTypeParser'])
const ENDS_TRANSACTION =
  /^\s*(?:begin|start\s+transaction|commit|end|abort|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b)|prepare\s+transaction)\b/i
/** Its time is limited by the handler's, which may be longer than what the engine's own statements are given. */
const ANSWER_MS_MAX = 2 ** 31 - 1

const lent = new WeakSet<object>()

/** Whether it was lent to a handler. */
export function isLent(transaction: object): boolean {
  return lent.has(transaction)
}

export class Loan {
  /** What the handler is given. */
  readonly client: pg.ClientBase
  readonly #client: pg.ClientBase
  #over = false
  #underWay = 0
  #firstFailure: unknown

  constructor(client: pg.ClientBase) {
    this.#client = client
    this.client = new Proxy(client, { get: (target, name) => this.#member(target, name) })
    lent.add(this.client)
  }

  /** Whether a statement of the handler's has not been answered. */
  get isBusy(): boolean {
    return this.#underWay > 0
  }

  /** Of the statements of the handler's. */
  get firstFailure(): unknown {
    return this.#firstFailure
  }

  end(): void {
    this.#over = true
  }

  #member(target: pg.ClientBase, name: PropertyKey): unknown {
    this.#requireOpen()
    const value: unknown = Reflect.get(target, name, target)
    if (typeof value !== 'function' || name === 'constructor') return value
    return (...values: unknown[]) => {
      this.#requireOpen()
      if (REFUSED.has(name)) throw invalid(`${String(name)}() was called on a connection that is only lent`)
      if (name === 'query') return this.#query(value as Query, values)
      return Reflect.apply(value, target, values)
    }
  }

  #query(query: Query, [first, ...rest]: unknown[]): unknown {
    const config = typeof first === 'string' ? { text: first } : first
    // Null is refused by `pg`; what it calls submittable comes with everything that it needs.
    if (typeof config !== 'object' || config === null || 'submit' in config) {
      return Reflect.apply(query, this.#client, [first, ...rest])
    }
    const { text = '' } = config as { text?: string }
    if (ENDS_TRANSACTION.test(text)) throw invalid(`the handler may not end its transaction by ${text.trim()}`)
    const settings = { types: pg.types, query_timeout: ANSWER_MS_MAX, ...config }
    const callback = rest.at(-1)
    if (typeof callback === 'function') rest[rest.length - 1] = this.#followed(callback as Callback)
    const result = Reflect.apply(query, this.#client, [settings, ...rest])
    if (result instanceof Promise) this.#follow(result)
    return result
  }

  #follow(result: Promise<unknown>): void {
    const answered = this.#begin()
    result.then(() => answered(), answered)
  }

  /** What answers by a callback gives no promise. */
  #followed(callback: Callback): Callback {
    const answered = this.#begin()
    return (error, result) => {
      answered(error ?? undefined)
      callback(error, result)
    }
  }

  /** A statement is under way, until what is returned is called. */
  #begin(): (failure?: unknown) => void {
    this.#underWay++
    return (failure) => {
      this.#underWay--
      this.#firstFailure ??= failure
    }
  }

  #requireOpen(): void {
    if (this.#over) throw invalid('the handler that it was given to has ended')
  }
}

function invalid(problem: string): PosthornError {
  return new PosthornError('POSTHORN_INVALID_TRANSACTION', { problem })
}
