/**
 * One run of a server, from its start until its processes are gone.
 *
 * A `ServerProcess` is handed out once it accepts connections. Its end, asked for or not, resolves `exited`. It does not
 * keep this process alive.
 */
import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { promisify } from 'node:util'
import type { PostgresUser } from './postgres-binaries.ts'

const execute = promisify(execFile)

const LOG_CHARACTERS_MAX = 20_000

export interface ServerProgram {
  readonly path: string
  readonly parameters: readonly string[]
  /** Where it runs. */
  readonly folder: string
  /** Who runs it; undefined: this process's user. */
  readonly user: PostgresUser | undefined
  /** What it writes to its log, on standard error, when it accepts connections. */
  readonly ready: string
  /** Ends it in good order. */
  readonly endedBy: NodeJS.Signals
  /** Called with the process as soon as there is one, and with undefined when it is gone. */
  onProcess(pid: number | undefined): void
}

/** The server ended before it was ready. */
export class ServerFailed extends Error {
  override readonly name = 'ServerFailed'
  readonly log: string

  constructor(log: string) {
    super(`The server did not start:\n${log}`)
    this.log = log
  }
}

export class ServerProcess {
  readonly pid: number
  /** Resolves once all of its processes are gone. */
  readonly exited: Promise<unknown>
  readonly #child: ChildProcessByStdio<null, null, Readable>

  readonly #endedBy: NodeJS.Signals

  private constructor(
    child: ChildProcessByStdio<null, null, Readable>,
    exited: Promise<unknown>,
    endedBy: NodeJS.Signals,
  ) {
    this.#child = child
    this.#endedBy = endedBy
    this.pid = child.pid!
    this.exited = exited
  }

  /** Rejects with `ServerFailed`. */
  static async start(program: ServerProgram): Promise<ServerProcess> {
    const child = launch(program)
    await once(child, 'spawn')
    program.onProcess(child.pid)
    // Its pipe closes when the last of its processes has gone.
    const exited = once(child, 'close')
    const server = new ServerProcess(
      child,
      exited.then(() => program.onProcess(undefined)),
      program.endedBy,
    )
    const log = await readyOrEnded(program, child, exited)
    if (log !== undefined) throw new ServerFailed(log)
    server.#keepAlive(false)
    return server
  }

  /** Ends the server in good order. */
  async stop(): Promise<void> {
    this.#keepAlive(true)
    this.#child.kill(this.#endedBy)
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

function launch(program: ServerProgram): ChildProcessByStdio<null, null, Readable> {
  const { path, parameters, folder, user } = program
  return spawn(path, parameters, {
    ...user,
    cwd: folder,
    env: { ...process.env, LC_ALL: 'C' },
    // A group of its own keeps Ctrl-C, which the terminal sends to all of a group, away from it.
    detached: process.platform !== 'win32',
    stdio: ['ignore', 'ignore', 'pipe'],
  })
}

/** Resolves with the log if the process ended, with undefined if it is ready. The log is read to its end all the while. */
async function readyOrEnded(
  program: ServerProgram,
  child: ChildProcessByStdio<null, null, Readable>,
  exited: Promise<unknown>,
): Promise<string | undefined> {
  const ready = Promise.withResolvers<undefined>()
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log = (log + text).slice(-LOG_CHARACTERS_MAX)
    if (log.includes(program.ready)) ready.resolve(undefined)
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
