/**
 * Removes a server and its folder when this process has ended, in whatever way: a process of its own waits for the end of
 * a pipe that this one holds open. It is not in this one's process group, so that Ctrl-C does not end it as well.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('./processes/watchdog.ts', import.meta.url))

export class Watchdog {
  readonly #child: ChildProcessByStdio<Writable, null, null>

  constructor(folder: string) {
    this.#child = spawn(process.execPath, [program, folder], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] })
    this.#child.stdin.on('error', () => {})
    this.#child.unref()
    ;(this.#child.stdin as Socket).unref()
  }

  /** The process that is to be ended; undefined: none. */
  guard(pid: number | undefined): void {
    this.#child.stdin.write(`${pid ?? 0}\n`)
  }

  /** Has it do its work now. Resolves once the folder is gone. */
  async release(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.ref()
    this.#child.stdin.end()
    await exited
  }
}
