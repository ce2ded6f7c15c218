import type { BreakerReport, LeaseId } from '../../../engine.ts'
import type { Clock } from '../../../environment/index.ts'
import type { Command, Holder, WireAdmissions } from '../protocol.ts'
import { findHeld, type HeldMessage } from '../store/delivery/held-message.ts'
import { BUSY_LIMIT_MS } from '../store/file/failure.ts'
import type { Store } from '../store/store.ts'
import type { Operation } from './operations.ts'
import type { Session } from './session.ts'
import type { Sources } from './sources.ts'

type Sent<Kind extends Command['kind']> = Extract<Command, { kind: Kind }>

const ASK_AGAIN = { startsInMs: [], againInMs: 10 }

/** Turns commands into operations: those about messages that are being handled, or are about to be. */
export class HandlerOperations {
  readonly #store: Store
  readonly #sources: Sources
  readonly #session: Session
  readonly #clock: Clock

  constructor(store: Store, sources: Sources, session: Session, clock: Clock) {
    this.#store = store
    this.#sources = sources
    this.#session = session
    this.#clock = clock
  }

  prepare(command: Command): Operation | undefined {
    switch (command.kind) {
      case 'admit':
        return this.#admit(command)
      case 'reportBreaker':
        return this.#reportBreaker(command.call, command.source, command.report)
      case 'steps':
        return this.#steps(command)
      case 'recordStep':
        return this.#recordStep(command)
      case 'identify':
        return alone(command.call, () => this.#identify(command.source))
      case 'leasesEnded':
        return this.#leasesEnded(command.source, command.leases)
      default:
        return undefined
    }
  }

  #admit({ call, source: number, demands, finished, sentAtMs }: Sent<'admit'>): Operation {
    return transactional(call, (): WireAdmissions => {
      const sessionId = this.#session.id
      const source = this.#sources.get(number)
      // Places that are given to a session which another process has just ended would never be free again.
      if (!source || source.closing || !this.#session.isStored()) {
        return { sessionId, admissions: demands.map(() => ASK_AGAIN) }
      }
      const { admissions } = this.#store
      // Asked for here, because the lock may have been long in coming.
      const nowMs = this.#clock.now()
      const waitedMs = Math.min(Math.max(0, nowMs - sentAtMs), BUSY_LIMIT_MS)
      admissions.finish(source, sessionId, finished)
      return { sessionId, admissions: admissions.admit(source, sessionId, demands, nowMs, waitedMs) }
    })
  }

  #reportBreaker(call: number, number: number, report: BreakerReport | undefined): Operation {
    return {
      ...transactional(call, () => this.#store.breakers.report(this.#session.id, number, report)),
      committed: () => {
        const source = this.#sources.get(number)
        if (source) source.breaker = report
      },
    }
  }

  /** Answers undefined when the lease is lost. */
  #steps({ call, lease, offset }: Sent<'steps'>): Operation {
    return alone(call, () =>
      this.#store.connection.read(() => {
        const held = this.#held(lease, offset)
        return held && this.#store.steps.read(held)
      }),
    )
  }

  /** Answers whether the message is still the lease's, if only to wait for its next attempt. */
  #recordStep({ call, source, lease, offset, name, result }: Sent<'recordStep'>): Operation {
    const record = () => {
      const message = this.#held(lease, offset) ?? this.#failed(source, lease, offset)
      if (message) this.#store.steps.record(message, name, result)
      return message !== undefined
    }
    return { ...transactional(call, record), durable: true }
  }

  #held(lease: LeaseId, offset: number): HeldMessage | undefined {
    const { leases, exceptions } = this.#store
    return findHeld(leases, exceptions, lease, this.#session.id, offset)
  }

  #failed(number: number, lease: LeaseId, offset: number): HeldMessage | undefined {
    const source = this.#sources.get(number)
    return source && this.#store.exceptions.failedUnder(lease, source.subscriptionId, offset)
  }

  #identify(number: number): Holder | undefined {
    const source = this.#sources.get(number)
    if (!source) return undefined
    const { subscriptionId, topicId, kind, partitions } = source
    return { sessionId: this.#session.id, row: { subscriptionId, topicId, kind, partitions } }
  }

  #leasesEnded(number: number, leases: readonly LeaseId[]): Operation | undefined {
    const source = this.#sources.get(number)
    if (!source) return undefined
    const { kind, topicId, subscriptionId } = source
    const forget = () => {
      for (const lease of leases) source.leases.delete(lease)
    }
    if (kind !== 'queue') return alone(undefined, forget)
    const trim = () => this.#store.retention.trimQueue(topicId, subscriptionId)
    return { ...transactional(undefined, trim), committed: forget }
  }
}

function transactional(call: number | undefined, run: () => unknown): Operation {
  return { ...answering(call), transactional: true, durable: false, run, concernsOthers: () => false }
}

/** By itself, before the turn's transaction. */
function alone(call: number | undefined, run: () => unknown): Operation {
  return { ...answering(call), transactional: false, durable: false, run, concernsOthers: () => false }
}

function answering(call: number | undefined): { readonly call?: number } {
  return call === undefined ? {} : { call }
}
