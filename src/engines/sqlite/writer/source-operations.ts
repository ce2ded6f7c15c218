import type { Command } from '../protocol.ts'
import type { Store } from '../store/store.ts'
import type { Operation } from './operations.ts'
import type { Session } from './session.ts'
import type { OpenSource, Sources, WaitingPull } from './sources.ts'

type Sent<Kind extends Command['kind']> = Extract<Command, { kind: Kind }>

/** Turns commands into operations: those that open and close sources, and say what waits for messages. */
export class SourceOperations {
  readonly #store: Store
  readonly #sources: Sources
  readonly #session: Session

  constructor(store: Store, sources: Sources, session: Session) {
    this.#store = store
    this.#sources = sources
    this.#session = session
  }

  prepare(command: Sent<'pull' | 'unpull' | 'openSource' | 'closeSource'>): Operation | undefined {
    switch (command.kind) {
      case 'pull':
        this.#park(command.source, command)
        return undefined
      case 'unpull':
        this.#unpark(command.source, command.pull)
        return undefined
      case 'openSource':
        return this.#open(command)
      case 'closeSource':
        return this.#close(command.call, command.source)
    }
  }

  #park(number: number, pull: WaitingPull): void {
    const source = this.#sources.get(number)
    if (source) source.pull = pull
  }

  #unpark(number: number, pull: number): void {
    const source = this.#sources.get(number)
    if (source?.pull?.pull === pull) source.pull = undefined
  }

  // The session is opened by itself, before the turn's transaction, whose roll-back it must survive.
  #open(command: Sent<'openSource'>): Operation {
    const { call, source: number, options } = command
    return {
      call,
      transactional: false,
      durable: false,
      run: () => {
        const { subscriptionId, topicId } = this.#store.subscriptionRows.find(options)
        const { kind, partitions } = this.#store.log.topic(options.topic)
        this.#session.open(this.#sources)
        this.#store.connection.write(() => this.#store.sessions.addSource(this.#session.id, number, subscriptionId))
        const { topic, subscription, limits } = options
        this.#sources.add({
          number,
          topic,
          subscription,
          subscriptionId,
          topicId,
          kind,
          partitions,
          limits,
          leases: new Set(),
          announced: new Map(),
          ordered: false,
          crowded: false,
          surplusToldAtMs: Number.NEGATIVE_INFINITY,
          breaker: undefined,
          pull: undefined,
          answered: undefined,
          closing: false,
        })
      },
      // Of an ordered subscription: they own more than their share now.
      concernsOthers: () => true,
    }
  }

  /** What earlier turns could not commit, and must be: the closing of sources. */
  unfinished(): Operation[] {
    return Array.from(this.#sources.closing(), (source) => this.#release(source))
  }

  #close(call: number, number: number): Operation {
    const source = this.#sources.close(number)
    if (source) return { ...this.#release(source), call }
    return { call, transactional: false, durable: false, run() {}, concernsOthers: () => false }
  }

  #release(source: OpenSource): Operation {
    return {
      transactional: true,
      durable: false,
      run: () => {
        for (const lease of source.leases) this.#store.recall.release(lease, this.#session.id)
        this.#store.sessions.removeSource(this.#session.id, source.number)
      },
      committed: () => this.#sources.remove(source.number),
      concernsOthers: () => true,
    }
  }
}
