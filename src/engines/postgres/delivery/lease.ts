/** The right of one source to messages of a partition, as far as they are not settled. */
export interface Lease {
  readonly id: number
  /** `session/number` of the source that holds it. */
  readonly source: string
  readonly partition: number
  /** Half-open ranges of what is not settled, flat: [from, to, from, to, ...], rising. */
  open: number[]
  readonly crashes: number
  /** It holds one message, which was a suspect when it was leased. */
  readonly isolated: boolean
  /** Its one message was set aside before: the row. */
  readonly rowId?: number
}

/** A range that came back unsettled: [from, to) of a partition. All are first attempts. */
export interface ReturnedRange {
  readonly partition: number
  readonly from: number
  readonly to: number
  readonly crashes: number
}

/** How many messages stand in half-open ranges. */
export function messagesIn(ranges: readonly number[]): number {
  let messages = 0
  for (let place = 0; place < ranges.length; place += 2) messages += ranges[place + 1]! - ranges[place]!
  return messages
}

export function contains(ranges: readonly number[], offset: number): boolean {
  for (let place = 0; place < ranges.length; place += 2) {
    if (offset < ranges[place]!) return false
    if (offset < ranges[place + 1]!) return true
  }
  return false
}
