/**
 * What a piece of work does to the messages of a subscription that do not go the happy way: collected message by message,
 * and carried out by `apply` with a statement for each kind of change, however many messages there are.
 *
 * The statements are sent together, in this order: the dead are copied from their rows, then rows are removed, changed and
 * added; what came back or was parked finds its place in its chain; what is behind failed messages is held; and at last
 * chains go on. The order in which the messages of one call were settled makes no difference to that, but for one thing:
 * a chain that was to go on does not go past a message that was parked afterwards, unless it is told to go on once more.
 *
 * State: what is to be done. Nothing of it is done, and the leases are as they were left, when `apply` rejects; the turn
 * is then lost as a whole.
 */
import type { DeadReason, Failure, LeaseId } from '../../../engine.ts'
import { toStoredText } from '../database/text.ts'
import type { Turn } from '../delivery/turns.ts'
import { idHash } from '../log/id-hash.ts'
import { CHAIN_END, CHAIN_START, type ChainPlace, type Chains } from '../order/chains.ts'
import { settlement as sql } from '../sql/settlement.ts'
import type { Steps } from './steps.ts'

export interface MessagePlace {
  readonly partition: number
  readonly offset: number
}

/** What is known of the row of a message that was set aside before. */
export interface LeasedRow {
  readonly rowId: number
  /** As it is stored. */
  readonly key: string | null
  readonly attempt: number
  /** It keeps the message itself. */
  readonly hasCopy: boolean
}

/** A message under lease that is being settled. */
export interface HeldMessage extends MessagePlace {
  readonly lease: LeaseId
  readonly crashes: number
  readonly row: LeasedRow | undefined
}

/**
 * What a message is to wait for: a time of its own; nothing but to be granted; its turn; or its turn unless it is alone
 * with its key.
 */
export type Wait =
  | { readonly for: 'time'; readonly dueAtMs: number }
  | { readonly for: 'grant' | 'turn' | 'turn unless alone' }

export interface Death {
  readonly message: HeldMessage
  /** As it is stored. */
  readonly key: string | null
  readonly blocks: boolean
  readonly reason: DeadReason
  readonly crashes: number
  readonly failure: Failure
}

/** A copy of a message for a dead letter. */
export interface Copy {
  readonly text: string
  readonly id: string
}

interface Waiting {
  readonly message: HeldMessage
  readonly key: string | null
  readonly wait: 'time' | 'turn' | 'grant'
  readonly dueAtMs: number | null
  readonly status: 'retrying' | 'parked'
  readonly failure: Failure | undefined
}

export class Changes {
  readonly #turn: Turn
  readonly #chains: Chains
  readonly #steps: Steps
  readonly #deaths: Death[] = []
  readonly #removed: number[] = []
  readonly #changed: Waiting[] = []
  readonly #added: Waiting[] = []
  readonly #givenBack: { readonly rowId: number; readonly crashes: number }[] = []
  readonly #parked: MessagePlace[] = []
  /** By partition and key: the first message behind which all is held, and how far the chain may go on. */
  readonly #held = new Map<string, ChainPlace>()
  readonly #advanced = new Map<string, ChainPlace>()
  readonly #finished: MessagePlace[] = []

  constructor(turn: Turn, chains: Chains, steps: Steps) {
    this.#turn = turn
    this.#chains = chains
    this.#steps = steps
  }

  get deaths(): readonly Death[] {
    return this.#deaths
  }

  /** The message of the row is done with: what waits behind it goes on. */
  remove(partition: number, { rowId, key }: Pick<LeasedRow, 'rowId' | 'key'>): void {
    this.#removed.push(rowId)
    if (key !== null) this.advance(partition, key)
  }

  giveBack({ rowId }: Pick<LeasedRow, 'rowId'>, crashes: number): void {
    this.#givenBack.push({ rowId, crashes })
  }

  /** `failure`: the message is to have its next attempt. */
  setAside(message: HeldMessage, key: string | null, wait: Wait, failure?: Failure): void {
    const waiting = { message, key, failure, ...this.#waitOf(message, wait, failure !== undefined) }
    if (message.row) this.#changed.push(waiting)
    else this.#added.push(waiting)
    if (key === null) return
    if (waiting.wait === 'time') this.#hold(message.partition, key, message.offset)
    if (waiting.wait === 'turn') this.#limitAdvance(message, key)
  }

  bury(death: Death): void {
    const { message, key, blocks } = death
    this.#deaths.push(death)
    if (blocks && key !== null) this.#hold(message.partition, key, CHAIN_START)
    if (message.row) this.remove(message.partition, message.row)
  }

  /** `key`: as it is stored. */
  advance(partition: number, key: string): void {
    this.#advanced.set(chainName(partition, key), { partition, key, offset: CHAIN_END })
  }

  forgetSteps(places: readonly MessagePlace[]): void {
    this.#finished.push(...places)
  }

  /** `copies`: of the deaths, in their order, as far as the log has them. */
  async apply(copies: readonly (Copy | undefined)[]): Promise<void> {
    const returned = this.#givenBack.map(({ rowId }) => rowId)
    this.#insertDeaths(copies)
    const removed = this.#removeRows()
    this.#changeRows()
    this.#addRows()
    const changed = [
      removed,
      this.#giveRowsBack(),
      this.#chains.letLoneGo(this.#turn, this.#parked),
      this.#chains.holdReturned(this.#turn, returned),
      this.#chains.holdBehind(this.#turn, [...this.#held.values()]),
      this.#chains.advanceTo(this.#turn, [...this.#advanced.values()]),
    ]
    this.#steps.forget(this.#turn, this.#finished)
    await Promise.all(changed)
  }

  #waitOf(message: HeldMessage, wait: Wait, isRetry: boolean): Pick<Waiting, 'wait' | 'dueAtMs' | 'status'> {
    const { state, nowMs } = this.#turn
    if (wait.for === 'time') {
      state.due(wait.dueAtMs)
      return { wait: 'time', dueAtMs: wait.dueAtMs, status: isRetry ? 'retrying' : 'parked' }
    }
    if (wait.for === 'grant') {
      state.due(nowMs)
      return { wait: 'grant', dueAtMs: nowMs, status: 'retrying' }
    }
    if (wait.for === 'turn unless alone') this.#parked.push(message)
    return { wait: 'turn', dueAtMs: null, status: 'parked' }
  }

  #hold(partition: number, key: string, offset: number): void {
    const name = chainName(partition, key)
    const first = Math.min(offset, this.#held.get(name)?.offset ?? offset)
    this.#held.set(name, { partition, key, offset: first })
  }

  #limitAdvance({ partition, offset }: MessagePlace, key: string): void {
    const name = chainName(partition, key)
    const advanced = this.#advanced.get(name)
    if (advanced && offset < advanced.offset) this.#advanced.set(name, { ...advanced, offset })
  }

  #insertDeaths(copies: readonly (Copy | undefined)[]): void {
    const deaths = this.#deaths
    if (deaths.length === 0) return
    const { rows, subscription, nowMs } = this.#turn
    rows.send(
      sql.bury,
      subscription.subscriptionId,
      nowMs,
      deaths.map(({ message }) => message.row?.rowId ?? null),
      deaths.map(({ message }) => message.partition),
      deaths.map(({ message }) => message.offset),
      deaths.map(({ key }) => key),
      deaths.map(({ blocks }) => blocks),
      deaths.map(({ reason }) => reason),
      deaths.map(({ crashes }) => crashes),
      deaths.map(({ failure }) => JSON.stringify(failure)),
      deaths.map((_, place) => copies[place]?.text ?? null),
      deaths.map((_, place) => (copies[place] ? idHash(copies[place].id) : null)),
    )
  }

  async #removeRows(): Promise<void> {
    if (this.#removed.length === 0) return
    const { rows, state } = this.#turn
    const removed = await rows.run(sql.remove, this.#removed)
    // Not before: others of these changes count, too, while this one is carried out.
    state.setAside -= removed
  }

  #changeRows(): void {
    if (this.#changed.length === 0) return
    const rowIds = this.#changed.map(({ message }) => message.row!.rowId)
    this.#turn.rows.send(sql.waitOn, rowIds, ...waitColumns(this.#changed))
  }

  #addRows(): void {
    const added = this.#added
    if (added.length === 0) return
    const { rows, subscription, state } = this.#turn
    state.setAside += added.length
    rows.send(
      sql.add,
      subscription.subscriptionId,
      added.map(({ message }) => message.partition),
      added.map(({ message }) => message.offset),
      added.map(({ key }) => key),
      ...waitColumns(added),
    )
  }

  async #giveRowsBack(): Promise<void> {
    const given = this.#givenBack
    if (given.length === 0) return
    const { rows, state } = this.#turn
    const rowIds = given.map(({ rowId }) => rowId)
    const crashes = given.map((row) => row.crashes)
    const back = await rows.rows<{ dueAtMs: number | null }>(sql.giveBack, rowIds, crashes)
    for (const { dueAtMs } of back) if (dueAtMs !== null) state.due(dueAtMs)
  }
}

/** What rows wait for from now on. A failure sets their crashes back. */
function waitColumns(waiting: readonly Waiting[]): unknown[][] {
  return [
    waiting.map(({ wait }) => wait),
    waiting.map(({ dueAtMs }) => dueAtMs),
    waiting.map(({ status }) => status),
    waiting.map(({ message, failure }) => (failure ? 0 : message.crashes)),
    waiting.map(({ message, failure }) => (failure ? message.lease : null)),
    waiting.map(({ failure }) => (failure ? JSON.stringify(failure) : null)),
  ]
}

function chainName(partition: number, key: string): string {
  return `${partition}:${key}`
}

/** The key of a message, as it is stored. */
export function keyOf(row: LeasedRow | undefined, key: string | undefined): string | null {
  return row?.key ?? (key === undefined ? null : toStoredText(key))
}
