import * as sql from '../../sql/steps.ts'
import type { Subscriptions } from '../consumers/subscriptions.ts'
import type { HeldMessage } from '../delivery/held-message.ts'
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
 * are some. What is left behind otherwise (by a handler that no longer has steps, a seek, a cancelled message, a
 * deleted dead letter) is found by sweeping over the table, a few messages a round.
 */
export class Steps {
  readonly #statements: Statements
  readonly #subscriptions: Subscriptions
  /** The message that the last round ended with. */
  #swept = BEGINNING

  constructor(statements: Statements, subscriptions: Subscriptions) {
    this.#statements = statements
    this.#subscriptions = subscriptions
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

  /** Deletes those of messages that will not be delivered again. */
  sweep(): void {
    const { subscriptionId, partition, offset } = this.#swept
    const places = this.#statements.all<Place>(
      sql.NEXT_MESSAGES_WITH_STEPS,
      subscriptionId,
      partition,
      offset,
      SWEPT_MAX,
    )
    const floors = new Map<string, number>()
    for (const place of places) if (this.#isLeftBehind(place, floors)) this.#forgetAt(place)
    this.#swept = places.length < SWEPT_MAX ? BEGINNING : places.at(-1)!
  }

  #isLeftBehind({ subscriptionId, partition, offset }: Place, floors: Map<string, number>): boolean {
    const name = `${subscriptionId} ${partition}`
    const floor = floors.get(name) ?? this.#subscriptions.floor(subscriptionId, partition)
    floors.set(name, floor)
    return offset < floor && !this.#statements.get(sql.MAY_RETURN, subscriptionId, partition, offset)
  }

  #forgetAt({ subscriptionId, partition, offset }: Place): void {
    this.forget(subscriptionId, partition, [offset])
  }
}
