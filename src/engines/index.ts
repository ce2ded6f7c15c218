import type { ConnectEngine } from '../engine.ts'
import { PosthornError } from '../errors.ts'

/** Loads each engine, and the driver that it needs, only when its URL is connected to. */
const engineByScheme: Readonly<Record<string, () => Promise<ConnectEngine>>> = {
  'sqlite:': async () => (await import('./sqlite/index.ts')).connectSqlite,
  'memory:': async () => (await import('./memory/index.ts')).connectMemory,
}

/** The engine that serves the URL's scheme. Rejects with POSTHORN_UNKNOWN_ENGINE. */
export async function loadEngine(url: URL | string): Promise<ConnectEngine> {
  const text = String(url)
  const scheme = text.slice(0, text.indexOf(':') + 1).toLowerCase()
  if (Object.hasOwn(engineByScheme, scheme)) return await engineByScheme[scheme]!().catch(explainMissing)
  const known = Object.keys(engineByScheme).join(', ')
  throw new PosthornError('POSTHORN_UNKNOWN_ENGINE', { url: withoutPassword(text), known })
}

// The error ends in logs, and the URL of a server carries its password.
function withoutPassword(url: string): string {
  return url.replace(/\/\/[^@/]*@/, '//***@')
}

// An old Node.js does not have the database that is part of newer ones.
function explainMissing(error: unknown): never {
  if ((error as NodeJS.ErrnoException).code !== 'ERR_UNKNOWN_BUILTIN_MODULE') throw error
  const details = { found: `no node:sqlite (it is ${process.version})`, needed: 'that module' }
  throw new PosthornError('POSTHORN_UNSUPPORTED_NODE', details, { cause: error })
}
