/**
 * Which record batches the event loop holds, decoded. All subscriptions of a process share them, so each batch crosses
 * the thread boundary and is decoded once. The thread decides what the event loop keeps: batches go from the least
 * recently granted on, once their text exceeds a budget. A subscription that has the process to itself comes back for
 * the rest of a batch at most, so that it needs little of it.
 */
import type { WireBatch } from '../protocol.ts'

const KEPT_BYTES_MAX = 6 * 2 ** 20
const KEPT_BYTES_MAX_ALONE = 2 ** 19

interface Shipped {
  readonly id: number
  readonly bytes: number
}

export class Shipments {
  readonly #shipped = new Map<string, Shipped>()
  #bytes = 0
  #nextId = 1
  /** Batches to send, and to forget, with the next turn. */
  #batches: WireBatch[] = []
  #forget: number[] = []

  /** The id under which the event loop knows the batch, or undefined when it does not have it. */
  find(name: string): number | undefined {
    const shipped = this.#shipped.get(name)
    if (!shipped) return undefined
    this.#shipped.delete(name)
    this.#shipped.set(name, shipped)
    return shipped.id
  }

  ship(name: string, batch: Omit<WireBatch, 'id'>): number {
    const id = this.#nextId++
    const bytes = batch.data.length
    this.#shipped.set(name, { id, bytes })
    this.#bytes += bytes
    this.#batches.push({ id, ...batch })
    return id
  }

  /** What the next turn carries, with `sources` of this process to share the batches. */
  take(sources: number): { batches: WireBatch[]; forget: number[] } {
    const keptBytesMax = sources > 1 ? KEPT_BYTES_MAX : KEPT_BYTES_MAX_ALONE
    for (const [name, { id, bytes }] of this.#shipped) {
      if (this.#bytes <= keptBytesMax) break
      this.#shipped.delete(name)
      this.#bytes -= bytes
      this.#forget.push(id)
    }
    const taken = { batches: this.#batches, forget: this.#forget }
    this.#batches = []
    this.#forget = []
    return taken
  }
}
