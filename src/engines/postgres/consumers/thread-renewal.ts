import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { Clock } from '../../../environment/index.ts'
import { threadFlags } from '../../thread-flags.ts'
import type { PostgresAddress } from '../address.ts'
import type { Life } from './life.ts'
import type { FromThread, ThreadData, ToThread } from './renewal-thread.ts'
import type { Renewal, RenewalListener } from './renewer.ts'

const THREAD = new URL(import.meta.url.endsWith('.ts') ? './renewal-thread.ts' : './renewal-thread.js', import.meta.url)
// It sends a few bytes now and then.
const THREAD_LIMITS = { maxYoungGenerationSizeMb: 2 }

export interface ThreadOptions {
  readonly address: PostgresAddress
  readonly clock: Clock
  readonly life: Life
  readonly leaseMs: number
  readonly listener: RenewalListener
  /** The thread has ended by itself: nothing is renewed any more. */
  onEnd(error: Error): void
}

/** Has a thread renew a session, for as long as the event loop gives signs of life. It keeps no process alive. */
export class ThreadRenewal implements Renewal {
  readonly #worker: Worker
  #isEnding = false

  constructor({ address, clock, life, leaseMs, listener, onEnd }: ThreadOptions) {
    const workerData: ThreadData = { address, leaseMs, life: life.buffer, elapsedMs: clock.elapsedMs() }
    const execArgv = threadFlags(process.execArgv)
    this.#worker = new Worker(THREAD, { workerData, name: 'posthorn-session', resourceLimits: THREAD_LIMITS, execArgv })
    const end = (error: Error) => {
      if (!this.#isEnding) onEnd(error)
      this.#isEnding = true
    }
    this.#worker.on('message', (message: FromThread) => {
      if (message === 'ready') this.#send({ elapsedMs: clock.elapsedMs() })
      else if ('lost' in message) void listener.onLost(message.lost)
      else listener.onTrouble(Object.assign(new Error(message.trouble), { code: message.code }))
    })
    this.#worker.once('error', end)
    this.#worker.once('exit', () => end(new Error('the thread that renews the session ended')))
    this.#worker.unref()
  }

  keep(sessionId: string | undefined): void {
    this.#send({ keep: sessionId })
  }

  async idle(): Promise<void> {}

  async end(): Promise<void> {
    if (this.#isEnding) return
    this.#isEnding = true
    this.#worker.ref()
    const exit = once(this.#worker, 'exit')
    this.#send('end')
    await exit
  }

  async kill(): Promise<void> {
    this.#isEnding = true
    await this.#worker.terminate()
  }

  #send(message: ToThread): void {
    this.#worker.postMessage(message)
  }
}
