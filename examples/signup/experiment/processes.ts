import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'

const STOP_MS_MAX = 15_000

/**
 * The child processes of one run. A child is started with the same Node.js and the same options as this process, and
 * counts as started when it reports that it is ready. Closing its channel asks it to stop; one that does not is
 * killed. `failure` rejects when a child ends without having been asked to, and never resolves.
 */
export class Processes {
  readonly #children: ChildProcess[] = []
  readonly failure: Promise<never>
  #fail: (error: Error) => void = () => {}
  #stopping = false

  constructor() {
    this.failure = new Promise((_resolve, reject) => {
      this.#fail = reject
    })
    this.failure.catch(() => {})
  }

  /** Starts `program`, a path within the example, and resolves with what it says when it is ready. */
  async start<Ready>(program: string, parameters: string[] = [], environment: NodeJS.ProcessEnv = {}): Promise<Ready> {
    const env = { ...process.env, ...environment }
    const child = fork(new URL(`../${program}`, import.meta.url), parameters, { env })
    this.#children.push(child)
    child.once('exit', (code, signal) => {
      if (!this.#stopping)
        this.#fail(new Error(`The process ${program} ended by itself (${signal ?? `code ${code}`}).`))
    })
    const [message] = await Promise.race([once(child, 'message'), this.failure])
    return (message as { ready: Ready }).ready
  }

  /** Stops all children, the last one started first, and resolves when they are gone. */
  async stop(): Promise<void> {
    this.#stopping = true
    for (const child of this.#children.reverse()) await stopChild(child)
  }
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const killer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX)
  const exited = once(child, 'exit')
  if (child.connected) child.disconnect()
  await exited
  clearTimeout(killer)
}
