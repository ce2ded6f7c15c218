/**
 * A PgBouncer in transaction mode of the tests' own, in front of a Postgres server: each transaction of a client may be
 * given another connection of the server. It is not an npm package, so it must be on the machine: in the PATH, where
 * Debian puts it, or where POSTHORN_TEST_PGBOUNCER says.
 *
 * It can be killed and run again, on the same port; it ends as the servers of `postgres.ts` do.
 */
import { execFile } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { PORTS, START_ATTEMPTS } from './postgres.ts'
import { giveAway, type PostgresUser, serverUser } from './postgres-binaries.ts'
import { ServerFailed, ServerProcess } from './server-process.ts'
import { Watchdog } from './watchdog.ts'

const execute = promisify(execFile)

export interface PgBouncer {
  /** Leads through it to the database of the server's URL. It stays the same over restarts. */
  readonly url: string
  /** Ends it at once, as `kill -9` does: all connections through it break. */
  kill(): Promise<void>
  restart(): Promise<void>
  /** Stops it and removes everything. Idempotent. */
  removeAll(): Promise<void>
}

const PROGRAMS = [process.env.POSTHORN_TEST_PGBOUNCER, 'pgbouncer', '/usr/sbin/pgbouncer']
const PORT_IS_TAKEN = /cannot listen|Address already in use/

/** Why tests that need it are to be skipped, or false. */
export async function whyNoPgBouncer(): Promise<string | false> {
  if (await findPgBouncer()) return false
  return 'There is no PgBouncer on this machine (on Debian: apt-get install pgbouncer).'
}

/** What it says of its version. */
export async function pgBouncerVersion(): Promise<string> {
  const { stdout } = await execute((await findPgBouncer())!, ['--version'])
  return stdout.split('\n')[0]!
}

async function findPgBouncer(): Promise<string | undefined> {
  for (const program of PROGRAMS) {
    const found = program && (await execute(program, ['--version']).catch(() => undefined))
    if (found) return program
  }
  return undefined
}

/** `connectionsMax`: how many of the server it opens for all of its clients. */
export async function startPgBouncer(serverUrl: string, connectionsMax = 10): Promise<PgBouncer> {
  const folder = await mkdtemp(join(tmpdir(), 'posthorn-pgbouncer-'))
  const watchdog = new Watchdog(folder)
  try {
    const bouncer = new Bouncer(folder, watchdog, new URL(serverUrl), connectionsMax)
    await bouncer.startOnFreePort()
    return bouncer
  } catch (error) {
    await watchdog.release()
    throw error
  }
}

class Bouncer implements PgBouncer {
  readonly #folder: string
  readonly #watchdog: Watchdog
  readonly #server: URL
  readonly #connectionsMax: number
  #port = 0
  #process: ServerProcess | undefined

  constructor(folder: string, watchdog: Watchdog, server: URL, connectionsMax: number) {
    this.#folder = folder
    this.#watchdog = watchdog
    this.#server = server
    this.#connectionsMax = connectionsMax
  }

  get url(): string {
    const url = new URL(this.#server)
    url.host = `127.0.0.1:${this.#port}`
    return url.href
  }

  async startOnFreePort(): Promise<void> {
    for (let attempt = 1; this.#process === undefined; attempt++) {
      this.#port = randomInt(PORTS.from, PORTS.to)
      try {
        await this.restart()
      } catch (error) {
        const taken = error instanceof ServerFailed && PORT_IS_TAKEN.test(error.log)
        if (!taken || attempt === START_ATTEMPTS) throw error
      }
    }
  }

  async kill(): Promise<void> {
    await this.#process?.kill()
    this.#process = undefined
  }

  async restart(): Promise<void> {
    await this.kill()
    const user = await serverUser()
    this.#process = await ServerProcess.start({
      path: (await findPgBouncer())!,
      parameters: [await this.#configure(user)],
      folder: this.#folder,
      user,
      ready: 'process up',
      endedBy: 'SIGTERM',
      onProcess: (pid) => this.#watchdog.guard(pid),
    })
  }

  async removeAll(): Promise<void> {
    await this.#process?.stop()
    this.#process = undefined
    await this.#watchdog.release()
  }

  async #configure(user: PostgresUser | undefined): Promise<string> {
    const { hostname, port, username, password } = this.#server
    const file = join(this.#folder, 'pgbouncer.ini')
    const server = `host=${hostname} port=${port || 5432} user=${decodeURIComponent(username)}`
    const settings = {
      listen_addr: '127.0.0.1',
      listen_port: this.#port,
      unix_socket_dir: '',
      auth_type: 'any',
      pool_mode: 'transaction',
      default_pool_size: this.#connectionsMax,
    }
    const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}`)
    const databases = `* = ${server} password=${decodeURIComponent(password)}`
    await writeFile(file, ['[databases]', databases, '[pgbouncer]', ...lines, ''].join('\n'))
    if (user !== undefined) await giveAway(this.#folder, user)
    return file
  }
}
