/**
 * The event loop's end of the writer thread: sends commands, keeps the promises of those that wait for an answer, and
 * acts on each turn that comes back. It holds no state of the store.
 *
 * The thread keeps the process alive only while a call waits for its answer or a source is open, so that a script
 * which only publishes can end when it is done.
 *
 * States: up; down, from the end of a thread until another one has opened the file and the sources; ended, which is
 * final. While it is down every call fails with the coded error of the day, and opening is tried after 100 ms, doubling
 * to 5 s. Calls that waited when the thread ended fail too: appends with POSTHORN_OUTCOME_UNKNOWN, unless the thread
 * said itself what became of them. It ends when it is closed; when the file was removed or replaced, which nobody but an
 * operator can mend; and for a database in memory, which is gone with its thread.
 */
import type { EngineOptions } from '../../engine.ts'
import { type Clock, type Logger, OnceAMinute, type Timer } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import { IN_MEMORY, type SqliteAddress } from './address.ts'
import { Listeners, type SourceListener } from './listeners.ts'
import { BEAT_MS, Liveness } from './liveness.ts'
import { PendingCalls } from './pending-calls.ts'
import type { Command, ThreadData, Turn, WireError, WireSourceOptions } from './protocol.ts'
import { describeFailure } from './store/file/failure.ts'
import { fromWire } from './wire-error.ts'
import { WriterThread } from './writer-thread.ts'

/** Omits a member from each part of a union. */
type Without<Union, Name extends string> = Union extends unknown ? Omit<Union, Name> : never
type CallCommand = Without<Extract<Command, { call: number }>, 'call' | 'nowMs'>

const REOPEN_MS_FIRST = 100
const REOPEN_MS_MAX = 5_000

export class Host {
  readonly file: string
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #data: ThreadData
  readonly #liveness = new Liveness()
  readonly #calls = new PendingCalls()
  readonly #sources = new Listeners()
  #thread: WriterThread | undefined
  /** Of the file that was opened first: a later thread takes no other. */
  #identity: string | undefined
  #failedSync = false
  readonly #warning: OnceAMinute
  #beat: Timer | undefined
  #alarm: Timer | undefined
  #reopening: Timer | undefined
  #dead: PosthornError | undefined
  #closing = false
  #ended = false

  private constructor(address: SqliteAddress, { environment, leaseMs }: EngineOptions) {
    this.file = address.file
    this.#clock = environment.clock
    this.#warning = new OnceAMinute(environment.clock)
    this.#logger = environment.logger
    this.#data = { address, leaseMs, liveness: this.#liveness.buffer }
  }

  static async open(address: SqliteAddress, options: EngineOptions): Promise<Host> {
    const host = new Host(address, options)
    host.#beatNow()
    await host.#launch()
    host.#holdProcess()
    host.#keepBeating(host.#clock.real ? BEAT_MS : options.leaseMs / 3)
    return host
  }

  /** Why nothing can be sent now; undefined while all is well. */
  get dead(): PosthornError | undefined {
    return this.#dead
  }

  /** Held time moves here before it does in the thread, and stops for nobody. */
  get leasedUntilMs(): number {
    return this.#clock.real ? this.#liveness.leasedUntilMs : Number.POSITIVE_INFINITY
  }

  get nowMs(): number {
    return this.#clock.now()
  }

  /** Sends a command and waits for its answer. */
  call<Value>(command: CallCommand): Promise<Value> {
    return this.#dead ? Promise.reject(this.#dead) : this.#ask(command)
  }

  /** Sends a command that nobody waits for. */
  send(command: Without<Command, 'nowMs'>): void {
    this.#thread?.send((this.#clock.real ? command : { ...command, nowMs: this.#clock.now() }) as Command)
  }

  listen(source: number, handlerTimeoutMs: number, options: WireSourceOptions, listener: SourceListener): void {
    this.#liveness.trust(handlerTimeoutMs)
    this.#sources.add(source, { options, listener })
    this.#holdProcess()
  }

  ignore(source: number): void {
    this.#sources.remove(source)
    this.#holdProcess()
  }

  /** Rejects when what is leased could not be given back, though the file is there. */
  async close(): Promise<void> {
    this.#closing = true
    try {
      if (!this.#dead) await this.#ask({ kind: 'close' })
    } finally {
      this.#end(new PosthornError('POSTHORN_CLOSED', { operation: 'the call' }))
      await this.#thread?.terminate()
    }
  }

  /** Ends the thread at once, as the death of the process would: nothing is given back. */
  async kill(): Promise<void> {
    const thread = this.#thread
    const problem = 'the writer thread was ended'
    this.#end(new PosthornError('POSTHORN_STORAGE_FAILED', { store: this.file, problem }))
    this.#down(this.#dead!)
    await thread?.terminate()
  }

  #ask<Value>(command: CallCommand): Promise<Value> {
    return new Promise<Value>((resolve, reject) => {
      const call = this.#calls.add({ stores: command.kind === 'append', resolve, reject })
      this.#holdProcess()
      this.send({ ...command, call } as Command)
    })
  }

  async #launch(): Promise<void> {
    const thread = await WriterThread.start({
      ...this.#data,
      ...(!this.#clock.real && { heldTimeMs: this.#clock.now() }),
      ...(this.#identity !== undefined && { identity: this.#identity }),
      afterFailedSync: this.#failedSync,
    })
    if (this.#ended) return thread.terminate()
    this.#thread = thread
    this.#identity ??= thread.identity
    this.#failedSync = false
    const over = (failure: PosthornError) => {
      if (this.#thread === thread) this.#lose(failure)
    }
    thread.listen(this.file, (turn) => this.#act(turn), over)
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
    this.#thread?.hold(this.#calls.size + this.#sources.size > 0)
  }

  #act(turn: Turn): void {
    this.#sources.tell(turn)
    if (turn.lost?.leasedUntilMs !== undefined) this.#liveness.noteLoss(turn.lost.leasedUntilMs)
    for (const result of turn.results) this.#calls.answer(result)
    this.#holdProcess()
    if (turn.trouble) this.#warn(turn.trouble)
    if (turn.alarmAtMs !== undefined) this.#setAlarm(turn.alarmAtMs)
    if (turn.ended) this.#lose(fromWire(turn.ended), true)
  }

  // It is tried ten times a second: said once a minute.
  #warn(trouble: WireError): void {
    if (!this.#warning.isDue()) return
    const { message, code } = fromWire(trouble)
    this.#logger.warn(`Work in the background failed and is tried again: ${message}`, { code })
  }

  #setAlarm(atMs: number): void {
    this.#alarm?.cancel()
    this.#alarm = this.#clock.setTimer(Math.max(0, atMs - this.#clock.now()), () => this.send({ kind: 'tick' }))
  }

  /** The thread is over. `announced`: it has answered all that it carried out. */
  #lose(failure: PosthornError, announced = false): void {
    void this.#thread?.terminate()
    this.#failedSync ||= announced
    // That it ends after it has closed the file may be known here before its answer has been acted on.
    if (this.#closing) {
      this.#down(failure, announced)
      return
    }
    const { code, message } = failure
    if (code === 'POSTHORN_STORAGE_REPLACED' || this.file === IN_MEMORY) {
      this.#end(failure)
      this.#logger.error(`Storage is lost to this process: ${message}`, { code })
    } else {
      this.#logger.error(`Storage failed and is opened again: ${message}`, { code })
    }
    this.#down(failure, announced)
    this.#sources.sessionEnded('the thread that renewed it has ended')
    if (!this.#ended) this.#reopenLater(REOPEN_MS_FIRST)
  }

  #down(failure: PosthornError, announced = this.#ended): void {
    this.#dead = failure
    this.#thread = undefined
    this.#calls.rejectAll(failure, this.file, announced)
    this.#sources.threadEnded(failure)
  }

  // Handlers may be waiting for their next message: the process is not to end for want of a thread.
  #reopenLater(delayMs: number): void {
    const reopen = () => void this.#reopen(Math.min(delayMs * 2, REOPEN_MS_MAX))
    this.#reopening = this.#clock.setTimer(delayMs, reopen, { keepsProcessAlive: this.#sources.size > 0 })
  }

  async #reopen(nextDelayMs: number): Promise<void> {
    try {
      await this.#launch()
      if (this.#ended) return
      for (const [source, { options, listener }] of this.#sources.all())
        await this.#openAgain(source, options, listener)
    } catch (error) {
      this.#stayDown(describeFailure(error, this.file), nextDelayMs)
      return
    }
    if (this.#ended || this.#thread === undefined) return
    this.#dead = undefined
    this.#holdProcess()
    this.#logger.info('Storage works again.', { file: this.file })
  }

  async #openAgain(source: number, options: WireSourceOptions, listener: SourceListener): Promise<void> {
    try {
      await this.#ask({ kind: 'openSource', source, options })
    } catch (error) {
      const { code } = error as PosthornError
      if (code !== 'POSTHORN_SUBSCRIPTION_NOT_FOUND' && code !== 'POSTHORN_TOPIC_NOT_FOUND') throw error
      listener.onGone(error as PosthornError)
    }
  }

  // A thread that ended while the sources were being opened has set a next try itself.
  #stayDown(failure: PosthornError, nextDelayMs: number): void {
    if (this.#ended) return
    if (failure.code === 'POSTHORN_STORAGE_REPLACED') {
      this.#lose(failure)
      return
    }
    void this.#thread?.terminate()
    this.#thread = undefined
    this.#dead = failure
    this.#reopening?.cancel()
    this.#reopenLater(nextDelayMs)
  }

  #end(why: PosthornError): void {
    this.#ended = true
    this.#dead = why
    this.#beat?.cancel()
    this.#alarm?.cancel()
    this.#reopening?.cancel()
  }
}
