import type { ConnectEngine } from '../engine.ts'
import { PosthornError } from '../errors.ts'
import type { OpenMoveSource, OpenMoveTarget, ReopenMoved } from './moving.ts'

export type * from './moving.ts'

const MISSING_PACKAGE = /Cannot find package '([^']+)'/

type Loaders<Loaded> = Readonly<Record<string, () => Promise<Loaded>>>

const loadPostgres = async () => (await import('./postgres/index.ts')).connectPostgres

/** Loads each engine, and the driver that it needs, only when its URL is connected to. */
const engineByScheme: Loaders<ConnectEngine> = {
  'sqlite:': async () => (await import('./sqlite/index.ts')).connectSqlite,
  'memory:': async () => (await import('./memory/index.ts')).connectMemory,
  'postgres:': loadPostgres,
  'postgresql:': loadPostgres,
}

const moveSourceByScheme: Loaders<OpenMoveSource> = {
  'sqlite:': async () => (await import('./sqlite/moving/source.ts')).openSqliteMoveSource,
}

const reopenByScheme: Loaders<ReopenMoved> = {
  'sqlite:': async () => (await import('./sqlite/moving/source.ts')).reopenSqlite,
}

const loadPostgresMoveTarget = async () => (await import('./postgres/moving/target.ts')).openPostgresMoveTarget
const moveTargetByScheme: Loaders<OpenMoveTarget> = {
  'postgres:': loadPostgresMoveTarget,
  'postgresql:': loadPostgresMoveTarget,
}

/** The engine that serves the URL's scheme. Rejects with POSTHORN_UNKNOWN_ENGINE. */
export function loadEngine(url: URL | string): Promise<ConnectEngine> {
  return load(engineByScheme, url)
}

/** What opens a store to move everything out of it. Rejects with POSTHORN_INVALID_OPTION for what cannot be moved. */
export function loadMoveSource(url: string): Promise<OpenMoveSource> {
  return load(moveSourceByScheme, url, notMovable('from'))
}

/** What lets a store be used again that was moved. Rejects with POSTHORN_UNKNOWN_ENGINE. */
export function loadReopen(url: string): Promise<ReopenMoved> {
  return load(reopenByScheme, url)
}

/** What opens a store to move everything into it. Rejects with POSTHORN_INVALID_OPTION for what cannot be moved into. */
export function loadMoveTarget(url: string): Promise<OpenMoveTarget> {
  return load(moveTargetByScheme, url, notMovable('to'))
}

async function load<Loaded>(byScheme: Loaders<Loaded>, url: URL | string, refusal = unknownEngine): Promise<Loaded> {
  const text = String(url)
  const scheme = text.slice(0, text.indexOf(':') + 1).toLowerCase()
  if (Object.hasOwn(byScheme, scheme)) return await byScheme[scheme]!().catch(explainMissing)
  throw refusal(schemeOf(text), Object.keys(byScheme))
}

function unknownEngine(scheme: string, known: readonly string[]): PosthornError {
  return new PosthornError('POSTHORN_UNKNOWN_ENGINE', { scheme, known: known.join(', ') })
}

function notMovable(option: string): typeof unknownEngine {
  return (scheme, known) => {
    const problem = `it is a URL with ${scheme}, and has to begin with ${known.join(' or ')}`
    return new PosthornError('POSTHORN_INVALID_OPTION', { option, problem })
  }
}

// The error ends in logs, and the URL of a server carries its password, wherever it is in one that is mistyped.
function schemeOf(url: string): string {
  return /^[a-z][a-z0-9+.-]*:/i.exec(url)?.[0] ?? 'no scheme'
}

// An old Node.js does not have the database that is part of newer ones, and drivers are installed by who needs them.
function explainMissing(error: unknown): never {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'ERR_UNKNOWN_BUILTIN_MODULE') {
    const details = { found: `no node:sqlite (it is ${process.version})`, needed: 'that module' }
    throw new PosthornError('POSTHORN_UNSUPPORTED_NODE', details, { cause: error })
  }
  const driver = code === 'ERR_MODULE_NOT_FOUND' ? MISSING_PACKAGE.exec(message)?.[1] : undefined
  if (driver === undefined) throw error
  throw new PosthornError('POSTHORN_DRIVER_MISSING', { driver }, { cause: error })
}
