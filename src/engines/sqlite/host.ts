/**
 * The event loop's end of the writer thread: sends commands, keeps the promises of those that wait for an answer, and
 * acts on each turn that comes back. It holds no state of the store.
 *
 * The thread keeps the process alive only while a call waits for its answer or a source is open, so that a script
 * which only publishes can end when it is done. When the thread dies, every call, the waiting ones and later ones, fails with POSTHORN_STORAGE_FAILED.
 */
import { Worker } from 'node:worker_threads'
import { BoxMap } from '../../collections/box-map.ts'
import type { EngineOptions, Grant, LeaseId, SourceOptions, StoredMessage } from '../../engine.ts'
import type { Clock, Logger, Timer } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import { decodeBatch, parseEvent, storedMessage } from '../../message/decode.ts'
import type { SqliteAddress } from './address.ts'
import { BEAT_MS, Liveness } from './liveness.ts'
import type {
  CallResult,
  Command,
  LostLeases,
  Opening,
  PullResult,
  ThreadData,
  Turn,
  WireError,
  WireGrant,
} from './protocol.ts'
import { threadFlags } from './thread-flags.ts'
import { fromWire } from './wire-error.ts'

/** Omits a member from each part of a union. */
type Without<Union, Name extends string> = Union extends unknown ? Omit<Union, Name> : never
type CallCommand = Without<Extract<Command, { call: number }>, 'call' | 'nowMs'>

interface Waiting {
  resolve(value: never): void
  reject(error: unknown): void
}

/** What a source wants to be told. */
export interface SourceListener extends Pick<SourceOptions, 'onLeasesLost' | 'onDamage'> {
  /** `pull` is the number that was given to the pull. */
  onGrants(grants: readonly Grant[], pull: number): void
  /** Without a number: no pull can be answered any more. */
  onPullFailed(error: PosthornError, pull?: number): void
}

const WARNING_MS = 60_000
const THREAD = new URL(import.meta.url.endsWith('.ts') ? './writer/thread.ts' : './writer/thread.js', import.meta.url)

export class Host {
  readonly file: string
  readonly #worker: Worker
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #liveness = new Liveness()
  readonly #calls = new BoxMap<number, Waiting>()
  readonly #listeners = new Map<number, SourceListener>()
  readonly #decoded = new BoxMap<number, StoredMessage[]>()
  #nextCall = 1
  #warnedAtMs = Number.NEGATIVE_INFINITY
  #beat: Timer | undefined
  #alarm: Timer | undefined
  #dead: PosthornError | undefined

  private constructor(address: SqliteAddress, { environment, leaseMs }: EngineOptions) {
    this.file = address.file
    this.#clock = environment.clock
    this.#logger = environment.logger
    const { real } = this.#clock
    this.#beatNow()
    const workerData: ThreadData = {
      address,
      leaseMs,
      liveness: this.#liveness.buffer,
      ...(!real && { heldTimeMs: this.#clock.now() }),
    }
    this.#worker = new Worker(THREAD, {
      workerData,
      name: 'posthorn-writer',
      resourceLimits: THREAD_LIMITS,
      execArgv: threadFlags(process.execArgv),
    })
  }

  static async open(address: SqliteAddress, options: EngineOptions): Promise<Host> {
    const host = new Host(address, options)
    const opening = await new Promise<Opening>((resolve, reject) => {
      host.#worker.once('message', resolve)
      host.#worker.once('error', (error) => reject(host.#failed(error)))
      host.#worker.once('exit', () => reject(host.#failed(new Error('the writer thread did not start'))))
    })
    if ('failed' in opening) {
      await host.#worker.terminate()
      throw fromWire(opening.failed)
    }
    host.#start(options.leaseMs)
    return host
  }

  /** Why nothing can be sent any more; undefined while all is well. */
  get dead(): PosthornError | undefined {
    return this.#dead
  }

  /** Sends a command and waits for its answer. */
  call<Value>(command: CallCommand): Promise<Value> {
    if (this.#dead) return Promise.reject(this.#dead)
    return new Promise<Value>((resolve, reject) => {
      const call = this.#nextCall++
      this.#calls.set(call, { resolve, reject })
      this.#holdProcess()
      this.send({ ...command, call } as Command)
    })
  }

  /** Sends a command that nobody waits for. */
  send(command: Without<Command, 'nowMs'>): void {
    this.#worker.postMessage(this.#clock.real ? command : { ...command, nowMs: this.#clock.now() })
  }

  listen(source: number, handlerTimeoutMs: number, listener: SourceListener): void {
    this.#liveness.trust(handlerTimeoutMs)
    this.#listeners.set(source, listener)
    this.#holdProcess()
  }

  ignore(source: number): void {
    this.#listeners.delete(source)
    this.#holdProcess()
  }

  async close(): Promise<void> {
    await this.call({ kind: 'close' })
    this.#beat?.cancel()
    this.#alarm?.cancel()
    this.#dead = new PosthornError('POSTHORN_CLOSED', { operation: 'the call' })
    await this.#worker.terminate()
  }

  /** Ends the thread at once, as the death of the process would: nothing is given back, nothing is told. */
  async kill(): Promise<void> {
    this.#beat?.cancel()
    this.#alarm?.cancel()
    await this.#worker.terminate()
  }

  #start(leaseMs: number): void {
    this.#worker.on('message', (turn: Turn) => this.#act(turn))
    this.#worker.on('error', (error) => this.#die(error))
    this.#worker.on('exit', () => this.#die(new Error('the writer thread ended')))
    this.#worker.unref()
    this.#keepBeating(this.#clock.real ? BEAT_MS : leaseMs / 3)
  }

  #keepBeating(everyMs: number): void {
    this.#beat = this.#clock.setTimer(everyMs, () => {
      this.#beatNow()
      // Held time moves in the thread only when it is told.
      if (!this.#clock.real) this.send({ kind: 'tick' })
      this.#keepBeating(everyMs)
    })
  }

  #beatNow(): void {
    this.#liveness.beat(this.#clock.now())
  }

  #holdProcess(): void {
    if (this.#calls.size + this.#listeners.size > 0) this.#worker.ref()
    else this.#worker.unref()
  }

  #act(turn: Turn): void {
    for (const batch of turn.batches) {
      this.#decoded.set(batch.id, decodeBatch(batch.shared, batch.data, batch.baseOffset))
    }
    if (turn.lost) this.#loseLeases(turn.lost)
    for (const result of turn.grants) this.#handOver(result)
    for (const id of turn.forget) this.#decoded.take(id)
    for (const { source, error } of turn.damaged) this.#listeners.get(source)?.onDamage(fromWire(error))
    for (const result of turn.results) this.#answer(result)
    if (turn.trouble) this.#warn(turn.trouble)
    if (turn.alarmAtMs !== undefined) this.#setAlarm(turn.alarmAtMs)
  }

  #answer(result: CallResult): void {
    const waiting = this.#calls.take(result.call)
    this.#holdProcess()
    if ('error' in result) waiting?.reject(fromWire(result.error))
    else waiting?.resolve(result.value as never)
  }

  #handOver(result: PullResult): void {
    const listener = this.#listeners.get(result.source)
    if ('error' in result) listener?.onPullFailed(fromWire(result.error), result.pull)
    else
      listener?.onGrants(
        result.grants.map((grant) => this.#toGrant(grant)),
        result.pull,
      )
  }

  #toGrant({ segments, kept, ...grant }: WireGrant): Grant {
    if (kept) return { ...grant, messages: [storedMessage(parseEvent(kept.event), kept.offset)] }
    const parts = segments.map(({ batch, from, to }) => {
      const messages = this.#decoded.get(batch)!
      return from === 0 && to === messages.length ? messages : messages.slice(from, to)
    })
    return { ...grant, messages: parts.length === 1 ? parts[0]! : parts.flat() }
  }

  #loseLeases({ reason, held }: LostLeases): void {
    for (const { source, leases } of held) this.#listeners.get(source)?.onLeasesLost(leases as LeaseId[], reason)
  }

  // It is tried ten times a second: said once a minute.
  #warn(trouble: WireError): void {
    const nowMs = this.#clock.now()
    if (nowMs < this.#warnedAtMs + WARNING_MS) return
    this.#warnedAtMs = nowMs
    const { message, code } = fromWire(trouble)
    this.#logger.warn(`Work in the background failed and is tried again: ${message}`, { code })
  }

  #setAlarm(atMs: number): void {
    this.#alarm?.cancel()
    this.#alarm = this.#clock.setTimer(Math.max(0, atMs - this.#clock.now()), () => this.send({ kind: 'tick' }))
  }

  #failed(cause: Error): PosthornError {
    return new PosthornError('POSTHORN_STORAGE_FAILED', { store: this.file, problem: cause.message }, { cause })
  }

  #die(cause: Error): void {
    this.#beat?.cancel()
    this.#alarm?.cancel()
    const dead = this.#dead ?? this.#failed(cause)
    this.#dead = dead
    for (const waiting of this.#calls.takeAll()) waiting.reject(dead)
    for (const listener of this.#listeners.values()) listener.onPullFailed(dead)
  }
}

// The thread holds no messages beyond a turn; a small young generation keeps its memory small.
const THREAD_LIMITS = { maxYoungGenerationSizeMb: 16 }
