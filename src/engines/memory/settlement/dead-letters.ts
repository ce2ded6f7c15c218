import type { DeadLetter } from '../../../engine.ts'

export interface BuriedMessage {
  readonly letter: DeadLetter
  readonly key: string | undefined
}

/** Oldest first. Those that block their key are found by it, too. */
export class DeadLetters {
  #buried: BuriedMessage[] = []
  readonly #blockers = new Map<number, Map<string, number>>()
  #blocking = 0

  get size(): number {
    return this.#buried.length
  }

  *[Symbol.iterator](): Generator<DeadLetter> {
    for (const { letter } of this.#buried) yield letter
  }

  /** How many block their key. */
  get blocking(): number {
    return this.#blocking
  }

  blocks(partition: number, key: string): boolean {
    return this.#blockers.get(partition)?.has(key) ?? false
  }

  /** The offsets and keys of those that block in a partition. */
  blockersOf(partition: number): readonly { readonly key: string; readonly offset: number }[] {
    if (!this.#blockers.has(partition)) return []
    return this.#buried.flatMap(({ letter, key }) =>
      letter.blocking && letter.partition === partition && key !== undefined ? [{ key, offset: letter.offset }] : [],
    )
  }

  page(afterId: number, limit: number): readonly DeadLetter[] {
    const later = this.#buried.filter(({ letter }) => letter.id > afterId)
    return later.slice(0, limit).map(({ letter }) => letter)
  }

  add(buried: BuriedMessage): void {
    this.#buried.push(buried)
    this.#count(buried, 1)
  }

  take(isWanted: (letter: DeadLetter) => boolean): BuriedMessage[] {
    const taken = this.#buried.filter(({ letter }) => isWanted(letter))
    this.#buried = this.#buried.filter(({ letter }) => !isWanted(letter))
    for (const buried of taken) this.#count(buried, -1)
    return taken
  }

  /** Those of a partition from `offset` on block no longer. */
  unblock(partition: number, offset: number): void {
    this.#buried = this.#buried.map((buried) => {
      const { letter, key } = buried
      if (!letter.blocking || letter.partition !== partition || letter.offset < offset) return buried
      this.#count(buried, -1)
      return { letter: { ...letter, blocking: false }, key }
    })
  }

  #count({ letter: { blocking, partition }, key }: BuriedMessage, step: 1 | -1): void {
    if (!blocking || key === undefined) return
    const keys = this.#blockers.get(partition) ?? new Map<string, number>()
    const left = (keys.get(key) ?? 0) + step
    if (left > 0) keys.set(key, left)
    else keys.delete(key)
    if (keys.size > 0) this.#blockers.set(partition, keys)
    else this.#blockers.delete(partition)
    this.#blocking += step
  }
}
