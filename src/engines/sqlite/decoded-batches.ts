import { BoxMap } from '../../collections/box-map.ts'
import type { Grant, StoredMessage } from '../../engine.ts'
import { decodeBatch, parseEvent, storedMessage } from '../../message/decode.ts'
import type { WireBatch, WireGrant } from './protocol.ts'

/** The record batches that the event loop holds, decoded once for all sources. The thread says which to forget. */
export class DecodedBatches {
  readonly #decoded = new BoxMap<number, StoredMessage[]>()

  add(batches: readonly WireBatch[]): void {
    for (const { id, shared, data, baseOffset } of batches) this.#decoded.set(id, decodeBatch(shared, data, baseOffset))
  }

  forget(ids: readonly number[]): void {
    for (const id of ids) this.#decoded.take(id)
  }

  clear(): void {
    this.#decoded.takeAll()
  }

  toGrant({ segments, kept, ...grant }: WireGrant): Grant {
    if (kept) return { ...grant, messages: [storedMessage(parseEvent(kept.event), kept.offset)] }
    const parts = segments.map(({ batch, from, to }) => {
      const messages = this.#decoded.get(batch)!
      return from === 0 && to === messages.length ? messages : messages.slice(from, to)
    })
    return { ...grant, messages: parts.length === 1 ? parts[0]! : parts.flat() }
  }
}
