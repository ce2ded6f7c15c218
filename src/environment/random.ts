import { getRandomValues } from 'node:crypto'

/** The only source of randomness in Posthorn, injected so that simulations can be replayed from a seed. */
export interface Random {
  /** A number from 0 up to, not including, 1. */
  number(): number
  /** Fills `bytes` with random bytes. */
  fill(bytes: Uint8Array): void
}

/** The operating system's randomness. */
export const systemRandom: Random = {
  number: () => Math.random(),
  fill: (bytes) => {
    getRandomValues(bytes)
  },
}

/**
 * A repeatable source of randomness: the same seed gives the same sequence. Not for secrets.
 * The generator is mulberry32 (Tommy Ettinger, public domain).
 */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  const number = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  return {
    number,
    fill: (bytes) => {
      for (let index = 0; index < bytes.length; index++) bytes[index] = Math.floor(number() * 256)
    },
  }
}
