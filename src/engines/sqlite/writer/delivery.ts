import type { LeaseId } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { WireError, WireGrant, WireSegment } from '../protocol.ts'
import type { PlannedGrant } from '../store/delivery/leases.ts'
import { isCorruption } from '../store/file/failure.ts'
import type { BatchRow } from '../store/log/log.ts'
import { isIntact, MessageReader } from '../store/log/message-reader.ts'
import type { Store } from '../store/store.ts'
import { toWire } from '../wire-error.ts'
import type { Shipments } from './shipments.ts'
import type { OpenSource } from './sources.ts'

/** Offsets of a grant that cannot be handed over: damaged, or deleted since they were leased. */
interface Unreadable {
  readonly from: number
  readonly to: number
  readonly damage?: PosthornError
}

export interface Delivery {
  readonly grants: WireGrant[]
  readonly damaged: WireError[]
  /** Leases of which nothing is left to deliver. */
  readonly ended: LeaseId[]
  /** Leases that have to be given back, because reading their messages failed. */
  readonly stranded: LeaseId[]
  failure?: unknown
}

const BATCHES_PER_LOOK = 256

/** Turns leased ranges into messages on their way to the event loop. Runs after the leases have been committed. */
export class Deliverer {
  readonly #store: Store
  readonly #shipments: Shipments
  readonly #reader: MessageReader

  constructor(store: Store, shipments: Shipments) {
    this.#store = store
    this.#shipments = shipments
    this.#reader = new MessageReader(store.log)
  }

  deliver(source: OpenSource, sessionId: number, plans: readonly PlannedGrant[], nowMs: number): Delivery {
    const delivery: Delivery = { grants: [], damaged: [], ended: [], stranded: [] }
    const untold = new Map<number, PlannedGrant['takeover']>()
    for (const plan of plans) {
      if (plan.takeover) untold.set(plan.partition, plan.takeover)
      try {
        this.#deliverOne(source, sessionId, withTakeover(plan, untold), delivery, nowMs)
        if (delivery.grants.at(-1)?.lease === plan.lease) untold.delete(plan.partition)
      } catch (error) {
        delivery.stranded.push(plan.lease)
        delivery.failure = error
      }
    }
    return delivery
  }

  #deliverOne(source: OpenSource, sessionId: number, plan: PlannedGrant, delivery: Delivery, nowMs: number): void {
    const unreadable: Unreadable[] = []
    const grant = this.#read(source, source.topic, plan, unreadable)
    if (unreadable.length > 0) this.#settleUnreadable(source, sessionId, plan, unreadable, nowMs)
    for (const { damage } of unreadable) if (damage) delivery.damaged.push(toWire(damage))
    if (grant.segments.length > 0 || grant.kept) delivery.grants.push(grant)
    else delivery.ended.push(plan.lease)
  }

  #read(source: OpenSource, topic: string, plan: PlannedGrant, unreadable: Unreadable[]): WireGrant {
    const { ranges, event, ...rest } = plan
    const kept = this.#keptEvent(source, plan)
    if (kept) return { ...rest, bytes: Buffer.byteLength(kept.event), segments: [], kept }
    const segments: WireSegment[] = []
    let bytes = 0
    for (const [from, to] of ranges)
      bytes += this.#readRange(source.topicId, topic, plan.partition, from, to, segments, unreadable)
    return { ...rest, bytes, segments }
  }

  // A retry is one message of a batch: it is cut out here, so that the event loop need not decode the batch for it.
  #keptEvent(source: OpenSource, plan: PlannedGrant): WireGrant['kept'] {
    const offset = plan.ranges[0]![0]
    if (plan.event !== undefined) return { offset, event: plan.event }
    if (!plan.setAside) return undefined
    const event = this.#reader.eventText(source.topicId, plan.partition, offset)
    return event === undefined ? undefined : { offset, event }
  }

  /** Returns the size of what can be read, in bytes. */
  #readRange(
    topicId: number,
    topic: string,
    partition: number,
    from: number,
    to: number,
    segments: WireSegment[],
    unreadable: Unreadable[],
  ): number {
    let bytes = 0
    let offset = from
    while (offset < to) {
      const places = this.#store.log.findBatches(topicId, partition, offset, BATCHES_PER_LOOK)
      for (const place of places) {
        if (place.baseOffset >= to) break
        if (place.baseOffset > offset) unreadable.push({ from: offset, to: place.baseOffset })
        const start = Math.max(offset, place.baseOffset)
        const end = Math.min(to, place.baseOffset + place.count)
        const batch = this.#ship(topicId, partition, place.baseOffset, place.batchId)
        if (batch === undefined)
          unreadable.push({ from: start, to: end, damage: damageOf(topic, partition, start, end) })
        else {
          segments.push({ batch, from: start - place.baseOffset, to: end - place.baseOffset })
          bytes += (place.bytes / place.count) * (end - start)
        }
        offset = end
      }
      if (places.length < BATCHES_PER_LOOK) break
    }
    if (offset < to) unreadable.push({ from: offset, to })
    return bytes
  }

  // Row ids are used again once a batch is deleted; a partition's offsets never are, so they name the batch.
  #ship(topicId: number, partition: number, baseOffset: number, batchId: number): number | undefined {
    const name = `${topicId}/${partition}/${baseOffset}`
    const known = this.#shipments.find(name)
    if (known !== undefined) return known
    const row = this.#readBatch(batchId)
    if (!row || !isIntact(row)) return undefined
    return this.#shipments.ship(name, { baseOffset, shared: row.shared, data: row.data })
  }

  // Where SQLite itself finds the row's pages damaged, the batch is as lost as by a wrong checksum.
  #readBatch(batchId: number): BatchRow | undefined {
    try {
      return this.#store.log.readBatch(batchId)
    } catch (error) {
      if (isCorruption(error)) return undefined
      throw error
    }
  }

  #settleUnreadable(
    source: OpenSource,
    sessionId: number,
    plan: PlannedGrant,
    unreadable: readonly Unreadable[],
    nowMs: number,
  ): void {
    this.#store.connection.write(() => {
      for (const { from, to, damage } of unreadable) {
        if (damage) {
          const { name, message, code } = damage
          const failure = { attempt: plan.attempt, atMs: nowMs, name, message, code }
          this.#store.settling.buryDamaged(source, plan.lease, sessionId, from, to, failure, nowMs)
        } else {
          this.#store.settling.settle(
            source,
            sessionId,
            { lease: plan.lease, acked: [from, to], exceptions: [] },
            nowMs,
          )
        }
      }
    })
  }
}

function damageOf(topic: string, partition: number, from: number, to: number): PosthornError {
  return new PosthornError('POSTHORN_BATCH_CORRUPT', { topic, partition, from, to: to - 1 })
}

// What the first grant of a partition has to tell, the next one tells when nothing of the first could be read.
function withTakeover(plan: PlannedGrant, untold: ReadonlyMap<number, PlannedGrant['takeover']>): PlannedGrant {
  const takeover = untold.get(plan.partition)
  return takeover === plan.takeover ? plan : { ...plan, takeover: takeover! }
}
