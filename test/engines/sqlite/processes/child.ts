/** Starts another process that uses a store, and speaks with it. */
import assert from 'node:assert/strict'
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import type { TestContext } from 'node:test'
import { eventually } from '../bench.ts'

export interface Task {
  readonly file: string
  readonly leaseMs: number
  readonly handlerTimeoutMs: number
  /**
   * `publish` what it is told; `ack` every message; `hold` what was leased; `suicide` when the message says so, `ack`
   * otherwise; `open` the store, and nothing else.
   */
  readonly role: 'publish' | 'ack' | 'hold' | 'suicide' | 'open'
  readonly messagesMax: number
}

/** What a child tells. */
export type Report =
  | { readonly kind: 'ready' }
  | { readonly kind: 'granted'; readonly data: unknown[]; readonly attempt: number; readonly isolated: boolean }
  | { readonly kind: 'lost'; readonly reason: string }
  | { readonly kind: 'fenced'; readonly count: number }
  | { readonly kind: 'published' }
  | { readonly kind: 'failed'; readonly code: string }

/** What a child is told. */
export type Order =
  | { readonly kind: 'publish'; readonly data: readonly unknown[] }
  | { readonly kind: 'block'; readonly durationMs: number }
  | { readonly kind: 'settle' }

export class Child {
  readonly process: ChildProcess
  readonly reports: Report[] = []

  private constructor(process: ChildProcess) {
    this.process = process
    process.on('message', (report) => this.reports.push(report as Report))
  }

  static start(test: TestContext, task: Partial<Task> & Pick<Task, 'file' | 'role'>): Child {
    const whole = { leaseMs: 60_000, handlerTimeoutMs: 60_000, messagesMax: 1_000, ...task }
    const process = fork(new URL('./user.ts', import.meta.url), [JSON.stringify(whole)])
    test.after(() => process.kill('SIGKILL'))
    return new Child(process)
  }

  tell(order: Order): void {
    this.process.send(order)
  }

  reported<Kind extends Report['kind']>(kind: Kind, count = 1): Promise<Extract<Report, { kind: Kind }>[]> {
    return eventually(() => {
      const found = this.reports.filter((report) => report.kind === kind) as Extract<Report, { kind: Kind }>[]
      assert.ok(found.length >= count, `${kind}: ${found.length} of ${count}; ${JSON.stringify(this.reports)}`)
      return found
    })
  }

  async die(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const exit = once(this.process, 'exit')
    this.process.kill(signal)
    await exit
  }

  async exited(): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) await once(this.process, 'exit')
  }
}
