import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { startPostgres } from '../servers/postgres.ts'

export const engines = ['sqlite', 'postgres'] as const

export type EngineName = (typeof engines)[number]

/** What the killed processes share. */
export interface CrashStore {
  readonly url: string
  /** Kills the server and runs it again; undefined where there is none. */
  readonly crashServer: (() => Promise<void>) | undefined
  remove(): Promise<void>
}

/** Makes an empty one, in a folder for what it may need. */
export async function newStore(engine: EngineName, folder: string): Promise<CrashStore> {
  if (engine === 'postgres') return newServer()
  mkdirSync(folder, { recursive: true })
  return { url: `sqlite:${join(folder, 'crash.db')}`, crashServer: undefined, remove: async () => {} }
}

// A process that dies has given what it wrote to the operating system, flushed or not.
async function newServer(): Promise<CrashStore> {
  const server = await startPostgres({ fsync: false })
  const crashServer = async () => {
    await server.kill()
    await server.restart()
  }
  return { url: server.url, crashServer, remove: () => server.removeAll() }
}
