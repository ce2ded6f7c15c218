/**
 * One run of a Postgres server, from its start until its processes are gone.
 *
 * A `Postmaster` is handed out once it accepts connections. Its end, asked for or not, resolves `exited`. It does not keep
 * this process alive.
 */
import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { promisify } from 'node:util'
import type { PostgresBinaries } from './postgres-binaries.ts'

const execute = promisify(execFile)

const READY = 'database system is ready to accept connections'
const LOG_CHARACTERS_MAX = 20_000

export interface PostmasterOptions {
  readonly binaries: PostgresBinaries
  readonly data: string
  readonly settings: Readonly<Record<string, string | number>>
  /** Called with the process as soon as there is one, and with undefined when it is gone. */
  onProcess(pid: number | undefined): void
}

/** The server ended before it was ready. */
export class PostmasterFailed extends Error {
  override readonly name = 'PostmasterFailed'
  readonly log: string

  constructor(log: string) {
    super(`Postgres did not start:\n${log}`)
    this.log = log
  }
}

export class Postmaster {
  readonly pid: number
  /** Resolves once all of its processes are gone. */
  readonly exited: Promise<unknown>
  readonly #child: ChildProcessByStdio<null, null, Readable>

  private constructor(child: ChildProcessByStdio<null, null, Readable>, exited: Promise<unknown>) {
    this.#child = child
    this.pid = child.pid!
    this.exited = exited
  }

  /** Rejects with `PostmasterFailed`. */
  static async start(options: PostmasterOptions): Promise<Postmaster> {
    const child = launch(options)
    await once(child, 'spawn')
    options.onProcess(child.pid)
    // Its pipe closes when the last of its processes has gone.
    const exited = once(child, 'close')
    const postmaster = new Postmaster(
      child,
      exited.then(() => options.onProcess(undefined)),
    )
    const log = await readyOrEnded(child, exited)
    if (log !== undefined) throw new PostmasterFailed(log)
    postmaster.#keepAlive(false)
    return postmaster
  }

  /** Ends the server in good order: open transactions are rolled back, everything is written. */
  async stop(): Promise<void> {
    this.#keepAlive(true)
    this.#child.kill('SIGINT')
    await this.exited
  }

  /**
   * Ends all of the server's processes at once, as `kill -9` does. The first is halted meanwhile, since it would start
   * new ones.
   */
  async kill(): Promise<void> {
    this.#keepAlive(true)
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return void (await this.exited)
    if (process.platform !== 'win32') this.#child.kill('SIGSTOP')
    const children = await childrenOf(this.pid)
    this.#child.kill('SIGKILL')
    for (const pid of children) killIfThere(pid)
    await this.exited
  }

  #keepAlive(alive: boolean): void {
    const pipe = this.#child.stderr as Socket
    if (alive) {
      this.#child.ref()
      pipe.ref()
    } else {
      this.#child.unref()
      pipe.unref()
    }
  }
}

function launch(options: PostmasterOptions): ChildProcessByStdio<null, null, Readable> {
  const { binaries, data, settings } = options
  const parameters = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  return spawn(join(binaries.folder, 'bin/postgres'), ['-D', data, ...parameters], {
    ...binaries.user,
    cwd: data,
    env: { ...process.env, LC_ALL: 'C' },
    // A group of its own keeps Ctrl-C, which the terminal sends to all of a group, away from it.
    detached: process.platform !== 'win32',
    stdio: ['ignore', 'ignore', 'pipe'],
  })
}

/** Resolves with the log if the process ended, with undefined if it is ready. The log is read to its end all the while. */
async function readyOrEnded(
  child: ChildProcessByStdio<null, null, Readable>,
  exited: Promise<unknown>,
): Promise<string | undefined> {
  const ready = Promise.withResolvers<undefined>()
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log = (log + text).slice(-LOG_CHARACTERS_MAX)
    if (log.includes(READY)) ready.resolve(undefined)
  })
  return Promise.race([ready.promise, exited.then(() => log)])
}

async function childrenOf(pid: number): Promise<readonly number[]> {
  if (process.platform === 'win32') return []
  if (process.platform === 'linux') {
    return numbers(await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8'))
  }
  const { stdout } = await execute('ps', ['-A', '-o', 'pid=,ppid='])
  const processes = stdout.trim().split('\n').map(numbers)
  return processes.filter(([, parent]) => parent === pid).map(([child]) => child!)
}

function numbers(text: string): readonly number[] {
  return text.split(/\s+/).filter(Boolean).map(Number)
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}
