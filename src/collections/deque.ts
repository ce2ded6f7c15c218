// A front that was taken from so often is cut off, once it is also half of the array.
const CUT_ABOVE = 1_024

/** A double-ended queue, as an array whose front moves on: `shift` of a long array would copy it. */
export class Deque<Value> {
  #values: (Value | undefined)[] = []
  #front = 0

  get length(): number {
    return this.#values.length - this.#front
  }

  get first(): Value | undefined {
    return this.#values[this.#front]
  }

  push(value: Value): void {
    this.#values.push(value)
  }

  pop(): Value | undefined {
    return this.length === 0 ? undefined : this.#values.pop()
  }

  shift(): Value | undefined {
    if (this.length === 0) return undefined
    const value = this.#values[this.#front]
    this.#values[this.#front++] = undefined
    if (this.#front === this.#values.length) this.#reset([])
    else if (this.#front > CUT_ABOVE && this.#front * 2 > this.#values.length) this.#reset(this.#rest())
    return value
  }

  unshift(value: Value): void {
    if (this.#front > 0) this.#values[--this.#front] = value
    else this.#values.unshift(value)
  }

  /** Takes out what the test is true for, and returns it. */
  takeWhere(test: (value: Value) => boolean): Value[] {
    const taken: Value[] = []
    const kept: Value[] = []
    for (const value of this.#rest()) (test(value) ? taken : kept).push(value)
    if (taken.length > 0) this.#reset(kept)
    return taken
  }

  takeAll(): Value[] {
    const values = this.#rest()
    this.#reset([])
    return values
  }

  #rest(): Value[] {
    return this.#values.slice(this.#front) as Value[]
  }

  #reset(values: Value[]): void {
    this.#values = values
    this.#front = 0
  }
}
