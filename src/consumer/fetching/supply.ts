/**
 * Where handlers get their messages from. A `Supply` holds what was granted and not started, and decides what is next:
 * in order of arrival (`GrantBuffer`), one message of a key at a time (`KeyLanes`), within limits (`Flow`, in front of
 * one of the others).
 *
 * A message is waiting, then taken; then it ends by way of the `Finisher`, or it is put back and waits again. The
 * finisher tells of each end, the ledger of each message that is recorded (`Witness`).
 */
import type { SettledException } from '../../engine.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'

/** A message of a grant. */
export interface Item {
  readonly ledger: GrantLedger
  /** Of the message within its grant. */
  readonly index: number
}

/** What hands out messages to handlers. */
export interface Supply {
  /** Whether ordinary messages have to wait because of a suspect. Then nothing but `takeSuspect` is to be called. */
  readonly held: boolean
  /** Ordinary messages that could be taken now. */
  readonly count: number
  /** As much is held as may be: what is there is to be started before more is fetched. */
  readonly full: boolean
  /** When the oldest message that could be taken now was granted, by `Clock.elapsedMs`. Undefined when there is none. */
  readonly oldestArrivedAtMs: number | undefined
  /**
   * Only where there are limits: until when what could be taken now, if it does not fill a batch, waits for more, by
   * `Clock.elapsedMs`. Undefined when there is nothing.
   */
  readonly startByMs?: number | undefined
  /** A handler is free: gets ready what it can, before `count` and `oldestArrivedAtMs` are read. `take` does it by itself. */
  prepare(): void
  /** The next message to start. */
  take(): Item | undefined
  /** The next suspect, which becomes exclusive, when it may run beside `running` others. */
  takeSuspect(running: number): Item | undefined
  /**
   * The handler of a taken message has ended, but the message has not: its outcome is still to be decided. It holds no
   * place of a limit any more, but its key stays busy. It ends by way of the finisher, or is put back, later.
   */
  setDown(item: Item): void
  /**
   * A taken message is to be handed out again, with nothing counted: as the next one, of its key or bucket where there
   * are such, or after those that wait now. A message whose lease was lost or which was cancelled is not to be put back.
   */
  putBack(item: Item, place: 'first' | 'last'): void
}

/** The pipeline's side of a supply. */
export interface Intake extends Supply {
  /** Messages that were fetched for free handlers: they can be taken, or wait for what all others would wait for too. */
  readonly ahead: number
  /** Messages that wait for something else: to fetch more may bring some that need not. */
  readonly blocked: number
  /** Others may be waiting behind those who keep all handlers busy, and are to have their share. */
  readonly looksFurther: boolean
  /** Messages are on their way back to the store; what was fetched now could come before them. */
  readonly leaving: boolean
  add(ledger: GrantLedger): void
  /** All of the ledger is recorded, or its lost suspect has ended. Says whether others had to wait for it. */
  endExclusive(ledger: GrantLedger): boolean
  /** Its lease is lost. */
  drop(ledger: GrantLedger): void
  /** A message that was not recorded is not to be handed out any more. */
  cancel(item: Item): void
  /** Takes out what waits of partitions that are to change hands: it is to be released in the same turn. */
  withdraw(partitions: ReadonlySet<number>): readonly Item[]
  /** Empties it and returns what waited, which is to end by way of the finisher. */
  drain(): readonly Item[]
}

/** How a delivery ended: with a settlement to come, or recorded by the engine already. */
export type End = 'acked' | 'recorded' | SettledException

/** Hears what becomes of messages. */
export interface Witness {
  /** A message has ended. Not called for those of lost leases. */
  ended(item: Item, end: End): void
  /** The engine has recorded the end of a message. */
  recorded(item: Item): void
}
