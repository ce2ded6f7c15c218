/** One life of the writer thread, as the event loop sees it: from a file that was opened to the end of the thread. */
import { Worker } from 'node:worker_threads'
import { PosthornError } from '../../errors.ts'
import { threadFlags } from '../thread-flags.ts'
import type { Command, Opening, ThreadData, Turn } from './protocol.ts'
import { fromWire } from './wire-error.ts'

const THREAD = new URL(import.meta.url.endsWith('.ts') ? './writer/thread.ts' : './writer/thread.js', import.meta.url)

// The thread holds no messages beyond a turn; a small young generation keeps its memory small.
const THREAD_LIMITS = { maxYoungGenerationSizeMb: 4 }

export class WriterThread {
  readonly #worker: Worker
  /** Tells the file that it has open from every other one. */
  readonly identity: string | undefined

  private constructor(worker: Worker, identity: string | undefined) {
    this.#worker = worker
    this.identity = identity
  }

  /** Rejects with a coded error, and leaves no thread behind, when the file cannot be opened. */
  static async start(data: ThreadData): Promise<WriterThread> {
    const worker = new Worker(THREAD, {
      workerData: data,
      name: 'posthorn-writer',
      resourceLimits: THREAD_LIMITS,
      execArgv: threadFlags(process.execArgv),
    })
    const { file } = data.address
    const opening = await new Promise<Opening>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', (cause) => reject(threadFailure(file, cause)))
      worker.once('exit', () => reject(threadFailure(file, new Error('the writer thread did not start'))))
    })
    if ('opened' in opening) return new WriterThread(worker, opening.identity)
    await worker.terminate()
    throw fromWire(opening.failed)
  }

  /** `onEnd` is called once, if the thread ends without being told to. */
  listen(file: string, onTurn: (turn: Turn) => void, onEnd: (failure: PosthornError) => void): void {
    const end = (cause: unknown) => {
      this.#worker.removeAllListeners('exit')
      onEnd(threadFailure(file, cause))
    }
    this.#worker.on('message', onTurn)
    this.#worker.once('error', end)
    this.#worker.once('exit', () => end(new Error('the writer thread ended')))
  }

  send(command: Command): void {
    this.#worker.postMessage(command)
  }

  /** Whether the thread keeps the process alive. */
  hold(process: boolean): void {
    if (process) this.#worker.ref()
    else this.#worker.unref()
  }

  /** Ends it at once; `onEnd` is not called. */
  async terminate(): Promise<void> {
    this.#worker.removeAllListeners('message')
    this.#worker.removeAllListeners('exit')
    await this.#worker.terminate()
  }
}

function threadFailure(store: string, cause: unknown): PosthornError {
  const problem = cause instanceof Error ? cause.message : String(cause)
  return new PosthornError('POSTHORN_STORAGE_FAILED', { store, problem }, { cause })
}
