import type { LeaseId, Settlement, SubscriptionConfig, TopicConfig } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { Command, WireGroup, WireOutcome } from '../protocol.ts'
import { atomically } from '../store/file/savepoint.ts'
import type { CancelNotice } from '../store/operators/cancellation.ts'
import type { SearchProgress } from '../store/operators/message-search.ts'
import type { Store, StoreAdmin } from '../store/store.ts'
import { toWire } from '../wire-error.ts'
import type { CancelNotices } from './cancel-notices.ts'
import type { HandlerOperations } from './handler-operations.ts'
import type { Session } from './session.ts'
import type { SourceOperations } from './source-operations.ts'
import type { Sources } from './sources.ts'

/** One thing to do in a turn, with what the turn has to know about it. */
export interface Operation {
  /** Undefined when nobody waits for an answer. */
  readonly call?: number
  /** Runs in the turn's write transaction, or by itself before it. */
  readonly transactional: boolean
  /** The transaction must be on stable storage before it is answered. */
  readonly durable: boolean
  run(): unknown
  /** Once its transaction is committed: changes what is kept in memory, which no roll-back would undo. */
  committed?(): void
  /** Once it has run: whether other processes may be waiting for what it did. */
  concernsOthers(): boolean
}

const READS: ReadonlySet<string> = new Set([
  'topics',
  'subscriptions',
  'consumers',
  'peek',
  'deadLetters',
  'checkIntegrity',
])

/** Turns commands into operations. */
export class Operations {
  readonly #store: Store
  readonly #sources: Sources
  readonly #session: Session
  readonly #cancelNotices: CancelNotices
  readonly #sourceOperations: SourceOperations
  readonly #handlerOperations: HandlerOperations

  constructor(
    store: Store,
    sources: Sources,
    session: Session,
    cancelNotices: CancelNotices,
    sourceOperations: SourceOperations,
    handlerOperations: HandlerOperations,
  ) {
    this.#store = store
    this.#sources = sources
    this.#session = session
    this.#cancelNotices = cancelNotices
    this.#sourceOperations = sourceOperations
    this.#handlerOperations = handlerOperations
  }

  prepare(commands: readonly Command[], nowMs: number): Operation[] {
    const operations: Operation[] = []
    // Behind the settlements of the same turn, which would otherwise find their leases gone without a word yet.
    const cancelling: Operation[] = []
    for (const command of commands) {
      const operation = this.#prepare(command, nowMs)
      if (operation) (isCancel(command) ? cancelling : operations).push(operation)
    }
    return operations.concat(cancelling)
  }

  #prepare(command: Command, nowMs: number): Operation | undefined {
    switch (command.kind) {
      case 'append':
        return this.#append(command, nowMs)
      case 'settle':
        return this.#settle(command.call, command.source, command.settlements, nowMs)
      case 'pull':
      case 'unpull':
      case 'openSource':
      case 'closeSource':
        return this.#sourceOperations.prepare(command)
      case 'ensureTopic':
        return this.#ensureTopic(command.call, command.config)
      case 'ensureSubscription':
        return this.#ensureSubscription(command.call, command.config)
      case 'admin':
        return this.#admin(command, nowMs)
      case 'userCommitted':
        return { transactional: false, durable: false, run() {}, concernsOthers: () => true }
      default:
        return this.#handlerOperations.prepare(command)
    }
  }

  #ensureTopic(call: number, config: TopicConfig): Operation {
    const { log } = this.#store
    return ensuring(
      call,
      this.#found(() => log.isConfigured(config)),
      () => log.ensureTopic(config),
    )
  }

  #ensureSubscription(call: number, config: SubscriptionConfig): Operation {
    const { subscriptionRows } = this.#store
    return ensuring(
      call,
      this.#found(() => subscriptionRows.isConfigured(config)),
      () => subscriptionRows.ensure(config),
    )
  }

  // A file that cannot be read now is left to the transaction, which reports it.
  #found(look: () => boolean): boolean {
    try {
      return look()
    } catch {
      return false
    }
  }

  #append({ call, groups, atomic }: Extract<Command, { kind: 'append' }>, nowMs: number): Operation {
    return {
      call,
      transactional: true,
      durable: true,
      run: () =>
        atomic ? this.#appendAllOrNone(groups, nowMs) : groups.map((group) => this.#appendGroup(group, nowMs)),
      concernsOthers: () => true,
    }
  }

  #appendGroup(group: WireGroup, nowMs: number): WireOutcome {
    try {
      return this.#store.log.append(group, nowMs)
    } catch (error) {
      if (!(error instanceof PosthornError)) throw error
      return { refused: toWire(error) }
    }
  }

  #appendAllOrNone(groups: readonly WireGroup[], nowMs: number): WireOutcome[] {
    const { connection, log } = this.#store
    try {
      return atomically(connection, () => groups.map((group) => log.append(group, nowMs)))
    } catch (error) {
      if (!(error instanceof PosthornError)) throw error
      const refused = toWire(error)
      return groups.map(() => ({ refused }))
    }
  }

  #settle(call: number, number: number, settlements: readonly Settlement[], nowMs: number): Operation {
    let released = false
    let ended: LeaseId[] = []
    return {
      call,
      transactional: true,
      durable: false,
      run: () => {
        released = settlements.some(({ exceptions }) => exceptions.some(({ kind }) => kind === 'release'))
        ended = []
        return this.#settleAll(number, settlements, ended, nowMs)
      },
      committed: () => {
        const leases = this.#sources.get(number)?.leases
        for (const lease of ended) {
          leases?.delete(lease)
          this.#cancelNotices.forget(lease)
        }
      },
      concernsOthers: () => released,
    }
  }

  #settleAll(number: number, settlements: readonly Settlement[], ended: LeaseId[], nowMs: number): LeaseId[] {
    const source = this.#sources.get(number)
    if (!source) return settlements.map(({ lease }) => lease)
    const fenced: LeaseId[] = []
    for (const settlement of settlements) {
      const outcome = this.#store.settling.settle(source, this.#session.id, settlement, nowMs)
      if (outcome !== 'open') ended.push(settlement.lease)
      if (outcome !== 'fenced') continue
      const partition = this.#cancelNotices.endedIn(settlement.lease)
      if (partition === undefined) fenced.push(settlement.lease)
      else this.#store.settling.settleRest(source.subscriptionId, partition, settlement, nowMs)
    }
    if (source.kind === 'queue') this.#store.retention.trimQueue(source.topicId, source.subscriptionId)
    return fenced
  }

  #admin({ call, operation, values }: Extract<Command, { kind: 'admin' }>, nowMs: number): Operation {
    if (operation === 'cancel') return this.#cancel(call, values as CancelValues, nowMs)
    const reads = READS.has(operation)
    const run =
      operation === 'applyRetention'
        ? () => this.#store.retention.apply(nowMs)
        : () => (this.#store[operation as keyof StoreAdmin] as AnyAdminCall).call(this.#store, nowMs, ...values)
    if (!reads) return { call, transactional: true, durable: true, run, concernsOthers: () => true }
    const read = () => this.#store.connection.read(run)
    return { call, transactional: false, durable: false, run: read, concernsOthers: () => false }
  }

  #cancel(call: number, values: CancelValues, nowMs: number): Operation {
    let notices: readonly CancelNotice[] = []
    return {
      call,
      transactional: true,
      durable: true,
      run: () => {
        const cancelled = this.#store.cancellation.cancel(nowMs, this.#session.id, ...values)
        notices = cancelled.notices
        return cancelled.step
      },
      committed: () => this.#cancelNotices.tell(notices),
      concernsOthers: () => true,
    }
  }
}

function isCancel(command: Command): boolean {
  return command.kind === 'admin' && command.operation === 'cancel'
}

type CancelValues = readonly [topic: string, id: string, resume?: SearchProgress]
type AnyAdminCall = (nowMs: number, ...values: readonly unknown[]) => unknown

/** `exists`: there is nothing to write, so that the answer need not wait for whoever has the file locked. */
function ensuring(call: number, exists: boolean, run: () => void): Operation {
  if (!exists) return { call, transactional: true, durable: true, run, concernsOthers: () => false }
  return { call, transactional: false, durable: false, run() {}, concernsOthers: () => false }
}
