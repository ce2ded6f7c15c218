import type { LeaseId } from '../../../engine.ts'
import type { CancelledMessage } from '../protocol.ts'
import type { CancelNotice } from '../store/operators/cancellation.ts'
import type { Store } from '../store/store.ts'
import type { Operation } from './operations.ts'
import type { Session } from './session.ts'
import type { Sources } from './sources.ts'

/** Their settlements are under way already when they end, or never come. */
const ENDED_MAX = 10_000

/**
 * Brings the news that a message was cancelled to the source that holds it, whichever process cancelled it.
 *
 * A lease may end so while its settlement is on its way: that is no loss of the lease, so leases that ended are
 * remembered until their settlement comes, the latest of them for want of knowing which never does.
 */
export class CancelNotices {
  readonly #store: Store
  readonly #sources: Sources
  readonly #session: Session
  /** By lease, the partition. */
  readonly #ended = new Map<LeaseId, number>()
  #told: CancelledMessage[] = []

  constructor(store: Store, sources: Sources, session: Session) {
    this.#store = store
    this.#sources = sources
    this.#session = session
  }

  /** What there is to do about notices of other processes, if there are any. */
  due(): Operation | undefined {
    const { cancellation } = this.#store
    const sessionId = this.#session.id
    if (sessionId === 0 || cancellation.noticesFor(sessionId).length === 0) return undefined
    let notices: readonly CancelNotice[] = []
    return {
      transactional: true,
      durable: false,
      run: () => {
        notices = cancellation.noticesFor(sessionId)
        cancellation.deleteNotices(sessionId)
      },
      committed: () => this.tell(notices),
      concernsOthers: () => false,
    }
  }

  /** Tells the sources with this turn. Only once the transaction is committed in which the messages were stopped. */
  tell(notices: readonly CancelNotice[]): void {
    for (const { lease, partition, offset, ended } of notices) {
      const source = this.#sources.holderOf(lease)
      if (ended === 1) this.#remember(lease, partition)
      if (!source) continue
      if (ended === 1) source.leases.delete(lease)
      this.#told.push({ source: source.number, lease, offset })
    }
  }

  take(): CancelledMessage[] {
    const told = this.#told
    this.#told = []
    return told
  }

  /** The partition of a lease that is not lost but ended, because what was left of it was cancelled. */
  endedIn(lease: LeaseId): number | undefined {
    return this.#ended.get(lease) ?? this.#store.cancellation.endedIn(this.#session.id, lease)
  }

  forget(lease: LeaseId): void {
    this.#ended.delete(lease)
  }

  #remember(lease: LeaseId, partition: number): void {
    this.#ended.set(lease, partition)
    if (this.#ended.size > ENDED_MAX) this.#ended.delete(this.#ended.keys().next().value!)
  }
}
