const FNV_OFFSET_BASIS = 0x811c9dc5
const FNV_PRIME = 0x01000193

/**
 * The partition of a key: FNV-1a, 32 bits, over the key's UTF-16 code units, low byte first. Every engine uses it, and
 * it never changes: a key that moved to another partition would lose its order.
 */
export function partitionOfKey(key: string, partitions: number): number {
  let hash = FNV_OFFSET_BASIS
  for (let position = 0; position < key.length; position++) {
    const unit = key.charCodeAt(position)
    hash = Math.imul(hash ^ (unit & 0xff), FNV_PRIME)
    hash = Math.imul(hash ^ (unit >>> 8), FNV_PRIME)
  }
  return (hash >>> 0) % partitions
}
