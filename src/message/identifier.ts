/**
 * Makes message ids: UUIDs of version 7 (RFC 9562), which sort by the time they were made.
 *
 * State: the millisecond of the last id, and a counter of 26 bits that stands right behind the time. A new millisecond
 * seeds the counter at random with its top bit clear, so that at least 33 million ids fit; within one millisecond it
 * counts up. Invariant: each id of one source sorts after the one before it. When the clock goes back, or the counter
 * is used up, the source stays on (or moves to) a millisecond of its own making until the clock catches up. The last
 * 48 bits are random in every id, which keeps the ids of different processes apart.
 */
import type { Random } from '../environment/index.ts'

const COUNTER_MAX = 2 ** 26 - 1
const POOL_BYTES = 6 * 512

const hexByte = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

export class IdentifierSource {
  readonly #random: Random
  readonly #pool = new Uint8Array(POOL_BYTES)
  #poolPosition = POOL_BYTES
  #timeMs = -1
  #counter = 0
  #prefix = ''

  constructor(random: Random) {
    this.#random = random
  }

  /** The next id, given the clock's present time. */
  next(nowMs: number): string {
    this.#advance(nowMs)
    const low = 0x8000 | (this.#counter & 0x3fff)
    return `${this.#prefix + hexByte[low >>> 8]! + hexByte[low & 0xff]!}-${this.#randomTail()}`
  }

  #advance(nowMs: number): void {
    if (nowMs > this.#timeMs) this.#startMillisecond(nowMs)
    else if (this.#counter === COUNTER_MAX) this.#startMillisecond(this.#timeMs + 1)
    else if ((++this.#counter & 0x3fff) === 0) this.#refreshPrefix()
  }

  #startMillisecond(timeMs: number): void {
    const position = this.#takeRandom()
    const pool = this.#pool
    this.#timeMs = timeMs
    this.#counter =
      ((pool[position]! << 17) | (pool[position + 1]! << 9) | (pool[position + 2]! << 1)) & (COUNTER_MAX >>> 1)
    this.#refreshPrefix()
  }

  // Everything in front of the counter's low 14 bits stays the same for thousands of ids, so it is kept as text.
  #refreshPrefix(): void {
    const time = this.#timeMs.toString(16).padStart(12, '0')
    const high = (this.#counter >>> 14).toString(16).padStart(3, '0')
    this.#prefix = `${time.slice(0, 8)}-${time.slice(8)}-7${high}-`
  }

  #randomTail(): string {
    const pool = this.#pool
    const at = this.#takeRandom()
    return (
      hexByte[pool[at]!]! +
      hexByte[pool[at + 1]!]! +
      hexByte[pool[at + 2]!]! +
      hexByte[pool[at + 3]!]! +
      hexByte[pool[at + 4]!]! +
      hexByte[pool[at + 5]!]!
    )
  }

  /** Where six fresh random bytes begin. */
  #takeRandom(): number {
    if (this.#poolPosition === POOL_BYTES) {
      this.#random.fill(this.#pool)
      this.#poolPosition = 0
    }
    const position = this.#poolPosition
    this.#poolPosition += 6
    return position
  }
}
