/**
 * The connection as a transactional handler has it: ours, for as long as the handler runs. The next handler works on the
 * same one, and what an earlier one left behind (a write that it did not await, a statement that it kept) would become
 * part of a transaction that it has nothing to do with. So it gets a stand-in, whose methods, and those of the statements
 * and whatever else comes from it, throw POSTHORN_INVALID_TRANSACTION once the loan is over. (A connection for each
 * handler would do as well, but to open it takes 170 microseconds, where all of a small transaction takes 50.)
 */
import { DatabaseSync } from 'node:sqlite'
import { PosthornError } from '../../errors.ts'

type Rows = ReturnType<ReturnType<DatabaseSync['prepare']>['iterate']>

/** Methods that return something which works on the connection later. */
const LENDING: ReadonlySet<PropertyKey> = new Set(['prepare', 'createSession', 'createTagStore'])

const loans = new WeakMap<object, Loan>()

export class Loan {
  /** What the handler is given. */
  readonly connection: DatabaseSync
  readonly #database: DatabaseSync
  /** Of queries that were not read to their end: on them, the connection goes on reading what was there then. */
  readonly #open = new Set<Rows>()
  #over = false

  constructor(database: DatabaseSync) {
    this.#database = database
    this.connection = this.#lend(database)
    loans.set(this.connection, this)
  }

  /** Returns the connection itself. Throws POSTHORN_INVALID_TRANSACTION once the loan is over. */
  use(): DatabaseSync {
    if (!this.#over) return this.#database
    const problem = 'the handler that it was given to has ended'
    throw new PosthornError('POSTHORN_INVALID_TRANSACTION', { problem })
  }

  end(): void {
    this.#over = true
    if (this.#database.isOpen) for (const rows of this.#open) rows.return?.()
    this.#open.clear()
  }

  #lend<Target extends object>(target: Target): Target {
    return new Proxy(target, { get: (_, name) => this.#member(target, name) })
  }

  // Methods of SQLite's own objects are called on these, and on nothing that stands in for them.
  #member(target: object, name: PropertyKey): unknown {
    this.use()
    const value: unknown = Reflect.get(target, name, target)
    // A tag store names the connection that it came from.
    if (value === this.#database) return this.connection
    if (typeof value !== 'function' || name === 'constructor') return value
    return (...values: unknown[]) => {
      this.use()
      const result: unknown = Reflect.apply(value, target, values)
      if (name === 'iterate') return this.#read(result as Rows)
      return LENDING.has(name) ? this.#lend(result as object) : result
    }
  }

  #read(rows: Rows): Rows {
    this.#open.add(rows)
    return this.#each(rows)
  }

  *#each(rows: Rows): Rows {
    try {
      for (;;) {
        this.use()
        const { done, value } = rows.next()
        if (done) return
        yield value
      }
    } finally {
      if (this.#open.delete(rows)) rows.return?.()
    }
  }
}

/** The connection itself, if it is one or was lent to a handler that still runs; undefined if it is neither. */
export function connectionOf(transaction: unknown): DatabaseSync | undefined {
  if (!(transaction instanceof DatabaseSync)) return undefined
  const loan = loans.get(transaction)
  return loan ? loan.use() : transaction
}
