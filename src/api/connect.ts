import { constants } from 'node:os'
import { loadEngine } from '../engines/index.ts'
import { type Environment, guardedLogger, systemEnvironment } from '../environment/index.ts'
import { checkText } from '../message/attributes.ts'
import { type Duration, describe, parseDuration } from '../message/duration.ts'
import { checkOptionNames, invalidOption, wholeNumber } from '../message/options.ts'
import { Post, type PostSettings } from './post.ts'

export interface ConnectOptions {
  /** The CloudEvents `source` of what this connection publishes: a URI reference. Default `'posthorn'`. */
  readonly source?: string
  /**
   * How long this process may be silent before its messages are given to others; the lease is renewed three times
   * as often. Default `'10s'`.
   */
  readonly lease?: Duration
  /** The largest message, in bytes of JSON with its attributes. Default 1 MiB. */
  readonly maxMessageBytes?: number
  /** How much may wait in this process to be stored, in bytes of JSON. Default 64 MiB. */
  readonly maxBufferedBytes?: number
  /**
   * Closes the connection when the process gets a signal: `true` for SIGTERM and SIGINT, or a list. Default `false`.
   * Once closed, the signal ends the process as it would have, unless somebody else listens to it.
   */
  readonly closeOnSignals?: boolean | readonly NodeJS.Signals[]
  /** How long `close` waits for running handlers before it aborts their signals. Default `'30s'`. */
  readonly drainTimeout?: Duration
  /** Replaces the clock, the source of randomness or the logger. What a logger throws is ignored. */
  readonly environment?: Partial<Environment>
}

const LEASE_MS_MIN = 100

const optionNames = new Set([
  'source',
  'lease',
  'maxMessageBytes',
  'maxBufferedBytes',
  'closeOnSignals',
  'drainTimeout',
  'environment',
])
const environmentNames = new Set(['clock', 'random', 'logger'])

/**
 * Connects to the place where messages are kept: `sqlite:path/to/file.db`, `postgres://user@host/database`, or `memory:`
 * for tests.
 *
 * Rejects with POSTHORN_UNKNOWN_ENGINE for other URLs, POSTHORN_DRIVER_MISSING when the package is not installed that
 * speaks to the server, POSTHORN_INVALID_OPTION for options that it does not know or that make no sense, and with the
 * engine's POSTHORN_STORAGE_ errors when the place cannot be used.
 */
export async function connect(url: URL | string, options: ConnectOptions = {}): Promise<Post> {
  checkUrl(url)
  checkOptionNames('connect options', options, optionNames)
  const environment = readEnvironment(options)
  const settings = readSettings(options)
  const leaseMs = parseDuration(options.lease ?? '10s', 'lease', LEASE_MS_MIN)
  const connectEngine = await loadEngine(url)
  const engine = await connectEngine(url, { environment, leaseMs })
  return new Post(engine, environment, settings)
}

function checkUrl(url: unknown): void {
  if ((typeof url === 'string' && url.length > 0) || url instanceof URL) return
  throw invalidOption('url', `it is ${describe(url)}; expected a URL such as 'sqlite:data/posthorn.db'`)
}

function readSettings(options: ConnectOptions): PostSettings {
  const { source = 'posthorn', maxMessageBytes = 1024 ** 2, maxBufferedBytes = 64 * 1024 ** 2 } = options
  checkText('source', source)
  return {
    source,
    maxMessageBytes: wholeNumber('maxMessageBytes', maxMessageBytes, { min: 1 }),
    maxBufferedBytes: wholeNumber('maxBufferedBytes', maxBufferedBytes, { min: 1 }),
    drainMs: parseDuration(options.drainTimeout ?? '30s', 'drainTimeout'),
    signals: readSignals(options.closeOnSignals ?? false),
  }
}

const uncatchable: readonly unknown[] = ['SIGKILL', 'SIGSTOP']

function readSignals(given: boolean | readonly NodeJS.Signals[]): readonly NodeJS.Signals[] {
  if (typeof given === 'boolean') return given ? ['SIGTERM', 'SIGINT'] : []
  if (!Array.isArray(given)) {
    throw invalidOption('closeOnSignals', `it is ${describe(given)}; expected true, false or an array of signal names`)
  }
  const wrong = given.find((signal) => !Object.hasOwn(constants.signals, signal) || uncatchable.includes(signal))
  if (wrong === undefined) return given
  throw invalidOption('closeOnSignals', `it holds ${describe(wrong)}, which is no signal that a process can catch`)
}

function readEnvironment({ environment = {} }: ConnectOptions): Environment {
  checkOptionNames('environment', environment, environmentNames)
  const { clock, random, logger } = { ...systemEnvironment, ...environment }
  checkMethods('clock', clock, ['now', 'elapsedMs', 'setTimer'])
  checkMethods('random', random, ['number', 'fill'])
  checkMethods('logger', logger, ['debug', 'info', 'warn', 'error'])
  return { clock, random, logger: guardedLogger(logger) }
}

function checkMethods<Part extends object>(name: string, part: Part, methods: readonly (keyof Part & string)[]): void {
  const missing = methods.find((method) => typeof part?.[method] !== 'function')
  if (missing !== undefined) throw invalidOption(`environment.${name}`, `it has no method ${missing}`)
}
