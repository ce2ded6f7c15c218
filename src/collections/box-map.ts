/**
 * A map for large values that come and go by the thousand.
 *
 * Each time enough entries of a `Map` have come and gone, V8 moves it to a new table; the old table keeps the values of
 * that moment, and a pointer to the new one. An old table that has been promoted lives until the next full collection,
 * dead or not, and with it everything in the chain of tables behind it: a quarter of all values ever stored. So here
 * the tables hold boxes, and a box is emptied when its entry goes.
 */
export class BoxMap<Key, Value> {
  readonly #boxes = new Map<Key, { value: Value | undefined }>()

  get size(): number {
    return this.#boxes.size
  }

  get(key: Key): Value | undefined {
    return this.#boxes.get(key)?.value
  }

  set(key: Key, value: Value): void {
    this.#boxes.set(key, { value })
  }

  /** Deletes an entry, and returns its value. */
  take(key: Key): Value | undefined {
    const box = this.#boxes.get(key)
    if (box === undefined) return undefined
    const { value } = box
    box.value = undefined
    this.#boxes.delete(key)
    return value
  }

  values(): Value[] {
    return [...this.#boxes.values()].map((box) => box.value as Value)
  }

  /** Deletes all entries, and returns their values. */
  takeAll(): Value[] {
    return [...this.#boxes.keys()].map((key) => this.take(key) as Value)
  }
}
