/**
 * Group commit. Messages that arrive while a commit is under way form the next one; an idle writer commits at the end
 * of the present microtask, so that what is published in one go is stored in one go; of a long burst the first part
 * sets out while the rest is still being encoded. Nothing lingers.
 *
 * State: lanes with something to send (`ready`, served in turn), lanes that a full backlog holds back (`holding`), at
 * most two commits under way, the number and bytes of all messages that are queued or under way, and lanes that a full
 * backlog has refused and not taken anything of since (`stalled`).
 * Invariants: every message added is told its fate exactly once; bytes counted in are counted out in the same step.
 *
 * Failure: when `append` rejects, its messages are rejected with that error and nothing is tried again, because
 * only the publisher knows whether a message that may have been stored may be stored twice. A refused group is
 * rejected or held, as its topic says. `close` rejects what is held and waits for everything else.
 *
 * What is to be stored together with messages of other topics, or not at all, passes the lanes by and is a commit of
 * its own: it could not be held back without holding back every topic that it touches. It is counted like the rest.
 */
import type { AppendGroup, AppendOutcome, AppendReceipt, Engine, NewMessage } from '../engine.ts'
import type { Clock } from '../environment/index.ts'
import { PosthornError } from '../errors.ts'
import type { AtomicGroup } from './atomic.ts'
import type { KnownTopics } from './known-topics.ts'
import type { Lane, Portion, Waiter } from './lane.ts'

const COMMITS_UNDER_WAY_MAX = 2
const COMMIT_MESSAGES_MAX = 1_000
const COMMIT_BYTES_MAX = 1024 * 1024
/** So many messages do not wait for the rest of a burst: storing them and encoding the others go on side by side. */
const BURST_MESSAGES = 256
const HOLD_MS = 5
const HOLD_MS_MAX = 250

export class Writer {
  readonly #engine: Engine
  readonly #clock: Clock
  readonly #topics: KnownTopics
  readonly #maxBufferedBytes: number
  readonly #ready = new Set<Lane>()
  readonly #holding = new Set<Lane>()
  readonly #stalled = new Set<Lane>()
  #underWay = 0
  #bufferedMessages = 0
  #bufferedBytes = 0
  #flushScheduled = false
  #closed = false
  #progress: PromiseWithResolvers<void> | undefined

  constructor(engine: Engine, clock: Clock, topics: KnownTopics, maxBufferedBytes: number) {
    this.#engine = engine
    this.#clock = clock
    this.#topics = topics
    this.#maxBufferedBytes = maxBufferedBytes
  }

  /** Bytes buffered of `lane` and of all the others, but not of those others that a full backlog holds back. */
  bytesBeside(lane: Lane): number {
    let bytes = this.#bufferedBytes
    for (const stalled of this.#stalled) if (stalled !== lane) bytes -= stalled.bufferedBytes
    return bytes
  }

  /** Queues a message. Throws POSTHORN_PUBLISH_BUFFER_FULL; one message is taken whatever its size. */
  add(lane: Lane, message: NewMessage, waiter: Waiter): void {
    this.#checkRoom(message.json.length)
    this.admit(lane, message, waiter)
  }

  /** Queues a message whatever is buffered already: for those who watch `bytesBeside` and wait by themselves. */
  admit(lane: Lane, message: NewMessage, waiter: Waiter): void {
    if (this.#closed) throw new PosthornError('POSTHORN_CLOSED', { operation: 'publish()' })
    lane.add(message, waiter)
    lane.bufferedBytes += message.json.length
    this.#bufferedBytes += message.json.length
    this.#bufferedMessages++
    if (lane.state === 'open') this.#send(lane)
    else if (lane.state === 'unready') this.#makeReady(lane)
  }

  /**
   * Stores all groups in one commit or none of them. Resolves with the receipts of each; rejects when one of them is
   * refused, whatever its topic does when it is full, and with POSTHORN_PUBLISH_BUFFER_FULL as `add` does.
   */
  async storeAtomically(groups: readonly AtomicGroup[]): Promise<readonly (readonly AppendReceipt[])[]> {
    if (this.#closed) throw new PosthornError('POSTHORN_CLOSED', { operation: 'publishAll()' })
    const messages = groups.reduce((sum, group) => sum + group.messages.length, 0)
    const bytes = groups.reduce((sum, group) => sum + lengthOf(group.messages), 0)
    this.#checkRoom(bytes)
    this.#bufferedMessages += messages
    this.#bufferedBytes += bytes
    try {
      return await this.#commitAtomically(groups)
    } finally {
      this.#bufferedMessages -= messages
      this.#bufferedBytes -= bytes
      this.#progressed()
    }
  }

  /** Resolves when some of what is buffered has been stored, refused, held back or failed. */
  progress(): Promise<void> {
    this.#progress ??= Promise.withResolvers()
    return this.#progress.promise
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const lane of this.#holding) this.#giveUp(lane)
    while (this.#bufferedMessages > 0) await this.progress()
  }

  #checkRoom(bytes: number): void {
    if (this.#bufferedBytes + bytes <= this.#maxBufferedBytes || this.#bufferedMessages === 0) return
    const details = { bytes: this.#bufferedBytes, limit: this.#maxBufferedBytes }
    throw new PosthornError('POSTHORN_PUBLISH_BUFFER_FULL', details)
  }

  async #commitAtomically(groups: readonly AtomicGroup[]): Promise<readonly (readonly AppendReceipt[])[]> {
    try {
      await Promise.all(groups.map(({ lane }) => this.#topics.ensure(lane.definition)))
      const outcomes = await this.#engine.append(groups.map(groupOf), { atomic: true })
      return outcomes.map(receiptsOf)
    } catch (error) {
      // Somebody deleted a topic: what comes next makes it again.
      if (isTopicNotFound(error)) for (const { lane } of groups) this.#topics.forget(lane.definition)
      throw error
    }
  }

  async #makeReady(lane: Lane): Promise<void> {
    lane.state = 'readying'
    try {
      await this.#topics.ensure(lane.definition)
      lane.state = 'open'
      this.#schedule(lane)
    } catch (error) {
      lane.state = 'unready'
      this.#reject(lane.takeAll(), error)
    }
  }

  #send(lane: Lane): void {
    this.#schedule(lane)
    if (lane.size >= BURST_MESSAGES && lane.sendable) this.#flush()
  }

  #schedule(lane: Lane): void {
    this.#ready.add(lane)
    if (this.#flushScheduled || this.#underWay === COMMITS_UNDER_WAY_MAX) return
    this.#flushScheduled = true
    queueMicrotask(() => {
      this.#flushScheduled = false
      this.#flush()
    })
  }

  #flush(): void {
    while (this.#underWay < COMMITS_UNDER_WAY_MAX) {
      const portions = this.#collect()
      if (portions.length === 0) return
      this.#commit(portions)
    }
  }

  #collect(): Portion[] {
    const portions: Portion[] = []
    let messages = COMMIT_MESSAGES_MAX
    let bytes = COMMIT_BYTES_MAX
    for (const lane of this.#ready) {
      if (messages <= 0 || bytes <= 0) break
      this.#ready.delete(lane)
      if (!lane.sendable) continue
      const portion = lane.take(messages, bytes)
      messages -= portion.messages.length
      bytes -= portion.bytes
      lane.underWay++
      portions.push(portion)
    }
    // What a lane could not send goes behind the others, which have their turn first next time.
    for (const { lane } of portions) if (lane.sendable) this.#ready.add(lane)
    return portions
  }

  async #commit(portions: readonly Portion[]): Promise<void> {
    this.#underWay++
    let outcomes: readonly AppendOutcome[] | undefined
    let failure: unknown
    try {
      outcomes = await this.#engine.append(portions.map(groupOf))
    } catch (error) {
      failure = error
    }
    this.#underWay--
    for (const [position, portion] of portions.entries()) {
      portion.lane.underWay--
      const outcome = outcomes?.[position]
      if (outcome === undefined) this.#fail(portion, failure)
      else if ('refused' in outcome) this.#refuse(portion, outcome.refused)
      else this.#resolve(portion, outcome.receipts)
      if (portion.lane.sendable) this.#ready.add(portion.lane)
    }
    this.#flush()
  }

  #resolve(portion: Portion, receipts: readonly AppendReceipt[]): void {
    const { messages, waiters } = portion
    for (let index = 0; index < waiters.length; index++) waiters[index]!.stored(messages[index]!.id, receipts[index]!)
    this.#countOut(portion)
  }

  #reject(portion: Portion, error: unknown): void {
    for (const waiter of portion.waiters) waiter.failed(error)
    this.#countOut(portion)
  }

  #refuse(portion: Portion, error: Error): void {
    const { lane } = portion
    const full = error instanceof PosthornError && error.code === 'POSTHORN_BACKLOG_FULL'
    if (!full || lane.definition.whenFull === 'reject') {
      this.#fail(portion, error)
      return
    }
    lane.putBack(portion)
    if (this.#closed) this.#giveUp(lane)
    else this.#hold(lane)
  }

  #fail(portion: Portion, error: unknown): void {
    if (isTopicNotFound(error)) this.#makeAnew(portion.lane)
    this.#reject(portion, error)
  }

  #hold(lane: Lane): void {
    const delayMs = Math.min(HOLD_MS_MAX, HOLD_MS * 2 ** Math.min(lane.refusals++, 10))
    lane.state = 'holding'
    this.#holding.add(lane)
    this.#stalled.add(lane)
    this.#progressed()
    const tryAgain = () => {
      this.#holding.delete(lane)
      lane.state = 'open'
      this.#schedule(lane)
    }
    // Nothing else may be under way, and somebody awaits these messages.
    lane.holdTimer = this.#clock.setTimer(delayMs, tryAgain, { keepsProcessAlive: true })
  }

  #giveUp(lane: Lane): void {
    lane.holdTimer?.cancel()
    lane.state = 'open'
    this.#holding.delete(lane)
    this.#reject(lane.takeAll(), new PosthornError('POSTHORN_CLOSED', { operation: 'publish()' }))
  }

  // Somebody deleted the topic: what comes next makes it again.
  #makeAnew(lane: Lane): void {
    if (lane.state !== 'open') return
    this.#topics.forget(lane.definition)
    lane.state = 'unready'
    if (lane.size > 0) this.#makeReady(lane)
  }

  #countOut({ lane, messages, bytes }: Portion): void {
    lane.refusals = 0
    lane.bufferedBytes -= bytes
    this.#stalled.delete(lane)
    this.#bufferedMessages -= messages.length
    this.#bufferedBytes -= bytes
    this.#progressed()
  }

  #progressed(): void {
    this.#progress?.resolve()
    this.#progress = undefined
  }
}

export function groupOf({ lane, messages }: AtomicGroup): AppendGroup {
  return { topic: lane.definition.name, shared: lane.shared, messages }
}

/** Throws what the store refused the group with. */
export function receiptsOf(outcome: AppendOutcome): readonly AppendReceipt[] {
  if ('refused' in outcome) throw outcome.refused
  return outcome.receipts
}

function lengthOf(messages: readonly NewMessage[]): number {
  return messages.reduce((sum, message) => sum + message.json.length, 0)
}

function isTopicNotFound(error: unknown): boolean {
  return error instanceof PosthornError && error.code === 'POSTHORN_TOPIC_NOT_FOUND'
}
