import { RANGES_WITH_OFFSET } from '../../sql/cancellation.ts'
import * as sql from '../../sql/steps.ts'
import type { HeldMessage } from '../delivery/held-message.ts'
import { bitsOf, type LeaseRow } from '../delivery/leases.ts'
import type { Statements } from '../file/connection.ts'

/** Messages that one round of sweeping looks at. */
const SWEPT_MAX = 500

interface Place {
  readonly subscriptionId: number
  readonly partition: number
  readonly offset: number
}

const BEGINNING: Place = { subscriptionId: 0, partition: 0, offset: -1 }

/**
 * The results of finished steps, a row each. They go with the acknowledgement of their message, which says that there
 * are some; and with a dead letter that is deleted. What is left behind otherwise (by a handler that no longer has steps,
 * or a cancelled message) is found by sweeping over the table, a few messages a round, and before a seek could bring
 * their messages back.
 */
export class Steps {
  readonly #statements: Statements
  /** The message that the last round ended with. */
  #swept = BEGINNING

  constructor(statements: Statements) {
    this.#statements = statements
  }

  /** The results by name. */
  read({ subscriptionId, partition, offset }: HeldMessage): Map<string, string> {
    const rows = this.#statements.all<{ name: string; result: string }>(
      sql.READ_STEPS,
      subscriptionId,
      partition,
      offset,
    )
    return new Map(rows.map(({ name, result }) => [name, result]))
  }

  record({ subscriptionId, partition, offset }: HeldMessage, name: string, result: string): void {
    this.#statements.run(sql.RECORD_STEP, subscriptionId, partition, offset, name, result)
  }

  forget(subscriptionId: number, partition: number, offsets: readonly number[]): void {
    for (const offset of offsets) this.#statements.run(sql.FORGET_STEPS, subscriptionId, partition, offset)
  }

  /** Deletes those of all messages that are no dead letters. */
  purge(subscriptionId: number): void {
    this.#statements.run(sql.PURGE_STEPS, subscriptionId)
  }

  /** Deletes what says why there is no result. */
  forgetProblems(subscriptionId: number, partition: number, offset: number): void {
    this.#statements.run(sql.FORGET_STEP_PROBLEMS, subscriptionId, partition, offset)
  }

  /** Looks at the next messages, for those that are done with. */
  sweep(): void {
    const places = this.#after(this.#swept)
    this.tidyUp(places)
    this.#swept = places.length < SWEPT_MAX ? BEGINNING : places.at(-1)!
  }

  /** Deletes those of all of the subscription's messages that are done with. */
  tidyUpAll(subscriptionId: number): void {
    let places = this.#after({ subscriptionId, partition: -1, offset: -1 })
    while (places[0]?.subscriptionId === subscriptionId) {
      this.tidyUp(places.filter((place) => place.subscriptionId === subscriptionId))
      places = this.#after(places.at(-1)!)
    }
  }

  /** Deletes those of messages, of these, that are neither delivered again nor dead letters. */
  tidyUp(places: readonly Place[]): void {
    for (const { subscriptionId, partition, offset } of places) {
      if (!this.#mayReturn(subscriptionId, partition, offset)) this.forget(subscriptionId, partition, [offset])
    }
  }

  #after({ subscriptionId, partition, offset }: Place): Place[] {
    return this.#statements.all<Place>(sql.NEXT_MESSAGES_WITH_STEPS, subscriptionId, partition, offset, SWEPT_MAX)
  }

  #mayReturn(...place: [subscriptionId: number, partition: number, offset: number]): boolean {
    if (this.#statements.get(sql.MAY_RETURN, ...place)) return true
    const ranges = this.#statements.all<LeaseRow>(RANGES_WITH_OFFSET, ...place)
    return ranges.some((range) => bitsOf(range).isOpen(place[2]))
  }
}
