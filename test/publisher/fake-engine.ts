import type {
  AppendGroup,
  AppendOptions,
  AppendOutcome,
  AppendReceipt,
  Engine,
  StoredEvent,
  TopicConfig,
} from '../../src/engine.ts'
import { decodeEvent } from '../../src/message/decode.ts'

/** One call of `append`, for the test to answer. */
export interface Append {
  readonly groups: readonly AppendGroup[]
  readonly atomic: boolean
  store(): void
  answer(outcomes: readonly AppendOutcome[]): void
  fail(error: Error): void
}

/**
 * The half of an engine that publishing needs. It stores nothing. An `append` stays open until the test answers it, or
 * is answered in the next macrotask when `automatic` is set.
 */
export class FakeEngine {
  readonly appends: Append[] = []
  readonly ensured: TopicConfig[] = []
  readonly transactions: { transaction: unknown; group: AppendGroup }[] = []
  automatic = false
  closed = 0
  underWay = 0
  underWayMax = 0
  /** Replaces the answer of `ensureTopic`. */
  onEnsureTopic: (config: TopicConfig) => Promise<void> = async () => {}
  /** Replaces the answer of `appendIn`. */
  onAppendIn: (group: AppendGroup) => AppendOutcome = (group) => ({ receipts: this.receipts(group) })
  #offset = 0
  #arrived: PromiseWithResolvers<void> = Promise.withResolvers()

  constructor(options: { automatic?: boolean; transactionalAppend?: boolean } = {}) {
    this.automatic = options.automatic ?? false
    this.capabilities = {
      durable: false,
      multiProcess: false,
      transactionalAppend: options.transactionalAppend ?? false,
      transactionalHandlers: false,
    }
  }

  readonly name = 'fake'
  readonly capabilities: Engine['capabilities']

  get engine(): Engine {
    const unused = () => Promise.reject(new Error('The fake engine cannot do this.'))
    return {
      name: this.name,
      capabilities: this.capabilities,
      ensureTopic: async (config) => {
        this.ensured.push(config)
        await this.onEnsureTopic(config)
      },
      ensureSubscription: unused,
      append: (groups, options) => this.#append(groups, options),
      appendIn: async (transaction, group) => {
        this.transactions.push({ transaction, group })
        return this.onAppendIn(group)
      },
      openSource: unused,
      admin: new Proxy({} as Engine['admin'], { get: () => unused }),
      close: async () => {
        this.closed++
      },
    }
  }

  /** Resolves with the given call of `append`, counted from 0, as soon as it was made. */
  async append(position: number): Promise<Append> {
    while (this.appends.length <= position) await this.#arrived.promise
    return this.appends[position]!
  }

  receipts(group: AppendGroup): AppendReceipt[] {
    return group.messages.map(() => ({ duplicate: false, partition: 0, offset: this.#offset++ }))
  }

  #append(groups: readonly AppendGroup[], { atomic = false }: AppendOptions = {}): Promise<readonly AppendOutcome[]> {
    const { promise, resolve, reject } = Promise.withResolvers<readonly AppendOutcome[]>()
    this.underWay++
    this.underWayMax = Math.max(this.underWayMax, this.underWay)
    const answer = (outcomes: readonly AppendOutcome[]) => {
      this.underWay--
      resolve(outcomes)
    }
    const store = () => answer(groups.map((group) => ({ receipts: this.receipts(group) })))
    const fail = (error: Error) => {
      this.underWay--
      reject(error)
    }
    this.appends.push({ groups, atomic, store, answer, fail })
    this.#arrived.resolve()
    this.#arrived = Promise.withResolvers()
    if (this.automatic) setImmediate(store)
    return promise
  }
}

/** The events that a group holds, decoded. */
export function eventsOf(group: AppendGroup): StoredEvent[] {
  return group.messages.map((message) => decodeEvent(group.shared, message.json))
}
