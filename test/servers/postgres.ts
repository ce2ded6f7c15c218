/**
 * A Postgres server of the tests' own, with nothing to install: `startPostgres` makes a database cluster in a temporary
 * folder and runs it on a free port.
 *
 * A server runs, or is stopped (by `stop` or `kill`) and can run again on the same port with the same data, or is removed.
 * Its processes and its folder are gone once `removeAll` resolves, and soon after this process has ended in any
 * other way. Calls must not overlap.
 */
import { execFile } from 'node:child_process'
import { randomBytes, randomInt } from 'node:crypto'
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { findPostgresBinaries, giveAway, type PostgresBinaries, usableBinaries } from './postgres-binaries.ts'
import { ServerFailed, ServerProcess } from './server-process.ts'
import { Watchdog } from './watchdog.ts'

const execute = promisify(execFile)

export interface PostgresOptions {
  /** Whether commits wait for the disk. Default: true, as in production. */
  readonly fsync?: boolean
  /** More settings, by their names in `postgresql.conf`. */
  readonly settings?: Readonly<Record<string, string | number>>
}

export interface PostgresServer {
  /** A superuser's connection to the database `postgres`. It stays the same over restarts. */
  readonly url: string
  /** Where the data and everything else of the server's is. */
  readonly folder: string
  /** The server's first process; undefined while it is stopped. */
  readonly pid: number | undefined
  /** Ends it in good order. */
  stop(): Promise<void>
  /** Ends all of its processes at once, as `kill -9` does. */
  kill(): Promise<void>
  /** Runs it again, on the same port with the same data; stops it first if it runs. */
  restart(): Promise<void>
  /** Stops it and removes everything. Idempotent. */
  removeAll(): Promise<void>
}

// Below the ports that operating systems hand out for outgoing connections, so that none takes it during a restart.
export const PORTS = { from: 15_000, to: 32_000 }
export const START_ATTEMPTS = 50
const PORT_IS_TAKEN = /could not create any TCP\/IP sockets/

/** Rejects with `PostgresUnavailable` where no Postgres can run. */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const installed = await findPostgresBinaries()
  const folder = await mkdtemp(join(tmpdir(), 'posthorn-postgres-'))
  const watchdog = new Watchdog(folder)
  try {
    const binaries = await usableBinaries(installed, join(folder, 'binaries'))
    const password = await createCluster(binaries, folder)
    const server = new Server(folder, binaries, password, options, watchdog)
    await server.startOnFreePort()
    return server
  } catch (error) {
    await watchdog.release()
    throw error
  }
}

/** Resolves with the superuser's password. Nothing is flushed to disk: a test does not outlive a power failure. */
async function createCluster({ folder: installed, user }: PostgresBinaries, folder: string): Promise<string> {
  const password = randomBytes(12).toString('hex')
  const data = join(folder, 'data')
  const passwordFile = join(folder, 'password')
  await mkdir(data)
  await writeFile(passwordFile, password)
  if (user !== undefined) await giveAway(folder, user)
  const parameters = ['--pgdata', data, '--username=postgres', '--auth=password', '--pwfile', passwordFile]
  parameters.push('--encoding=UTF8', '--no-locale', '--no-sync', '--no-instructions')
  const environment = { ...process.env, LC_ALL: 'C' }
  await execute(join(installed, 'bin/initdb'), parameters, { ...user, cwd: data, env: environment })
  return password
}

class Server implements PostgresServer {
  readonly folder: string
  readonly #binaries: PostgresBinaries
  readonly #password: string
  readonly #options: PostgresOptions
  readonly #watchdog: Watchdog
  #port = 0
  #postmaster: ServerProcess | undefined

  constructor(
    folder: string,
    binaries: PostgresBinaries,
    password: string,
    options: PostgresOptions,
    watchdog: Watchdog,
  ) {
    this.folder = folder
    this.#binaries = binaries
    this.#password = password
    this.#options = options
    this.#watchdog = watchdog
  }

  get url(): string {
    return `postgres://postgres:${this.#password}@127.0.0.1:${this.#port}/postgres`
  }

  get pid(): number | undefined {
    return this.#postmaster?.pid
  }

  async startOnFreePort(): Promise<void> {
    for (let attempt = 1; this.#postmaster === undefined; attempt++) {
      this.#port = randomInt(PORTS.from, PORTS.to)
      try {
        await this.restart()
      } catch (error) {
        const taken = error instanceof ServerFailed && PORT_IS_TAKEN.test(error.log)
        if (!taken || attempt === START_ATTEMPTS) throw error
      }
    }
  }

  async stop(): Promise<void> {
    await this.#postmaster?.stop()
    this.#postmaster = undefined
  }

  async kill(): Promise<void> {
    await this.#postmaster?.kill()
    this.#postmaster = undefined
  }

  async restart(): Promise<void> {
    await this.stop()
    const { folder: installed, user } = this.#binaries
    const data = join(this.folder, 'data')
    const settings = Object.entries(settingsFor(this.#port, this.#options))
    this.#postmaster = await ServerProcess.start({
      path: join(installed, 'bin/postgres'),
      parameters: ['-D', data, ...settings.flatMap(([name, value]) => ['-c', `${name}=${value}`])],
      folder: data,
      user,
      ready: 'database system is ready to accept connections',
      // Open transactions are rolled back, everything is written.
      endedBy: 'SIGINT',
      onProcess: (pid) => this.#watchdog.guard(pid),
    })
  }

  async removeAll(): Promise<void> {
    await this.stop()
    await this.#watchdog.release()
  }
}

function settingsFor(port: number, options: PostgresOptions): Record<string, string | number> {
  return {
    port,
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    // Files in the data folder, where those of a killed server are removed with it.
    dynamic_shared_memory_type: 'mmap',
    // The server's own messages without its clients' errors, which nobody reads and which could fill the pipe.
    log_min_messages: 'log',
    // Recovery flushes the data folder: on Linux in one call instead of file by file, a second faster.
    recovery_init_sync_method: process.platform === 'linux' ? 'syncfs' : 'fsync',
    max_connections: 200,
    fsync: options.fsync === false ? 'off' : 'on',
    ...options.settings,
  }
}
