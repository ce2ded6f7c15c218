import type { Grant, LeaseId, Settlement, Source, SourceOptions } from '../../engine.ts'
import type { PosthornError } from '../../errors.ts'
import type { Host } from './host.ts'

interface WaitingPull {
  resolve(grants: readonly Grant[]): void
  reject(error: unknown): void
}

/** This process's share of a subscription: passes pulls and settlements on to the writer thread. */
export class SqliteSource implements Source {
  readonly #host: Host
  readonly #number: number
  readonly #onClose: () => void
  #waiting: WaitingPull | undefined
  #pulls = 0
  /** Why nothing can ever be pulled again. */
  #gone: PosthornError | undefined
  #closing: Promise<void> | undefined

  private constructor(host: Host, number: number, onClose: () => void) {
    this.#host = host
    this.#number = number
    this.#onClose = onClose
  }

  static async open(host: Host, number: number, options: SourceOptions, onClose: () => void): Promise<SqliteSource> {
    const source = new SqliteSource(host, number, onClose)
    const { topic, subscription, handlerTimeoutMs } = options
    await host.call({ kind: 'openSource', source: number, options: { topic, subscription } })
    host.listen(
      number,
      handlerTimeoutMs,
      { topic, subscription },
      {
        onGrants: (grants, pull) => source.#receive(grants, pull),
        onPullFailed: (error, pull) => source.#fail(error, pull),
        onGone: (error) => {
          source.#gone = error
        },
        onLeasesLost: (leases, reason) => options.onLeasesLost(leases, reason),
        onDamage: (error) => options.onDamage(error),
      },
    )
    return source
  }

  pull(limits: { messagesMax: number; bytesMax: number }, signal: AbortSignal): Promise<readonly Grant[]> {
    if (this.#closing || signal.aborted) return Promise.resolve([])
    const failure = this.#gone ?? this.#host.dead
    if (failure) return Promise.reject(failure)
    const pull = ++this.#pulls
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        this.#host.send({ kind: 'unpull', source: this.#number })
        this.#take()?.resolve([])
      }
      const settled = () => signal.removeEventListener('abort', giveUp)
      this.#waiting = {
        resolve: (grants) => {
          settled()
          resolve(grants)
        },
        reject: (error) => {
          settled()
          reject(error)
        },
      }
      signal.addEventListener('abort', giveUp, { once: true })
      this.#host.send({ kind: 'pull', source: this.#number, pull, ...limits })
    })
  }

  async settle(settlements: readonly Settlement[]): Promise<readonly LeaseId[]> {
    if (this.#closing) return settlements.map(({ lease }) => lease)
    return this.#host.call({ kind: 'settle', source: this.#number, settlements })
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#take()?.resolve([])
    try {
      await this.#host.call<void>({ kind: 'closeSource', source: this.#number })
    } finally {
      this.#host.ignore(this.#number)
      this.#onClose()
    }
  }

  // Leases that were under way while their pull was given up go back: nobody asked for them any more.
  #receive(grants: readonly Grant[], pull: number): void {
    if (this.#closing) return
    if (this.#waiting && pull === this.#pulls) this.#take()?.resolve(grants)
    else this.#host.send({ kind: 'giveBack', source: this.#number, leases: grants.map(({ lease }) => lease) })
  }

  #fail(error: PosthornError, pull = this.#pulls): void {
    if (pull === this.#pulls) this.#take()?.reject(error)
  }

  #take(): WaitingPull | undefined {
    const waiting = this.#waiting
    this.#waiting = undefined
    return waiting
  }
}
