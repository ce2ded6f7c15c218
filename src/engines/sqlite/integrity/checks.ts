/**
 * Checks of the whole file, each in a thread of its own with a connection that only reads: the writer thread goes on
 * storing messages and renewing leases however long they take.
 *
 * A check ends by itself, with a list or an error, or with the engine, when it rejects with POSTHORN_CLOSED.
 */
import { Worker } from 'node:worker_threads'
import { PosthornError } from '../../../errors.ts'
import { threadFlags } from '../../thread-flags.ts'
import type { WireError } from '../protocol.ts'
import { fromWire } from '../wire-error.ts'

/** All that the thread says. */
export type IntegrityReport = { readonly problems: readonly string[] } | { readonly failed: WireError }

const THREAD = new URL(import.meta.url.endsWith('.ts') ? './thread.ts' : './thread.js', import.meta.url)

export class IntegrityChecks {
  readonly #file: string
  readonly #running = new Set<Worker>()

  constructor(file: string) {
    this.#file = file
  }

  /** What is wrong with the file, in words. */
  async run(): Promise<readonly string[]> {
    const worker = new Worker(THREAD, {
      workerData: this.#file,
      name: 'posthorn-integrity',
      execArgv: threadFlags(process.execArgv),
    })
    this.#running.add(worker)
    try {
      const report = await this.#reportOf(worker)
      if ('failed' in report) throw fromWire(report.failed)
      return report.problems
    } finally {
      this.#running.delete(worker)
    }
  }

  async close(): Promise<void> {
    await Promise.all(Array.from(this.#running, (worker) => worker.terminate()))
  }

  #reportOf(worker: Worker): Promise<IntegrityReport> {
    return new Promise((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', (cause) => {
        const details = { store: this.#file, problem: cause instanceof Error ? cause.message : String(cause) }
        reject(new PosthornError('POSTHORN_STORAGE_FAILED', details, { cause }))
      })
      // After the report this changes nothing; before it, only `close` ends the thread.
      worker.once('exit', () => reject(new PosthornError('POSTHORN_CLOSED', { operation: 'the integrity check' })))
    })
  }
}
