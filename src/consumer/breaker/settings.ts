import { type Duration, describe, parseDuration } from '../../message/duration.ts'
import { checkOptionNames, checkSwitch, invalidOption, wholeNumber } from '../../message/options.ts'
import { isOutage } from './is-outage.ts'

/**
 * When a subscription stops calling its handler because what the handler depends on is down, and how it finds out that
 * it is up again. Failures that this brings about do not count as attempts of their messages.
 */
export interface BreakerOptions {
  /**
   * Tells a failure of what the handler depends on (`true`) from one of the message (`false`). Default: `isOutage`,
   * which posthorn exports. When it throws, that counts as `false`.
   */
  readonly isOutage?: (error: unknown) => boolean
  /**
   * Outages in a row, with no other outcome between them, at which the breaker opens. 1 to 10,000. Default 5. Those of
   * retries do not count, unless ten times as many fail in a row for five probe delays.
   */
  readonly threshold?: number
  /** When single messages are tried while the breaker is open. */
  readonly probe?: ProbeOptions
}

export interface ProbeOptions {
  /** How long after opening; doubled with each probe that fails, and up to a half shorter by chance. Default `'1s'`. */
  readonly delay?: Duration
  /** The longest delay, unless the downstream itself asks for a longer one (Retry-After). Default `'30s'`. */
  readonly max?: Duration
}

/** Breaker options, checked, with every default filled in. */
export interface BreakerSettings {
  readonly isOutage: (error: unknown) => boolean
  readonly threshold: number
  readonly probe: { readonly delayMs: number; readonly maxMs: number }
}

const breakerNames = new Set(['isOutage', 'threshold', 'probe'])
const probeNames = new Set(['delay', 'max'])

/** What was given for `breaker`; undefined: no breaker. Throws POSTHORN_INVALID_OPTION. */
export function readBreaker(option: boolean | BreakerOptions | undefined): BreakerSettings | undefined {
  if (option === undefined || option === false) return undefined
  const options = option === true ? {} : checkSwitch('breaker', option)
  checkOptionNames('breaker', options, breakerNames)
  const { isOutage: classify = isOutage, threshold = 5, probe = {} } = options
  if (typeof classify !== 'function') {
    throw invalidOption('breaker.isOutage', `it is ${describe(classify)}; expected a function`)
  }
  return {
    isOutage: classify,
    threshold: wholeNumber('breaker.threshold', threshold, { min: 1, max: 10_000 }),
    probe: readProbe(probe),
  }
}

function readProbe(probe: ProbeOptions): BreakerSettings['probe'] {
  checkOptionNames('breaker.probe', probe, probeNames)
  const { delay = '1s', max = '30s' } = probe
  const delayMs = parseDuration(delay, 'breaker.probe.delay', 1)
  const maxMs = parseDuration(max, 'breaker.probe.max', 1)
  if (maxMs >= delayMs) return { delayMs, maxMs }
  if (probe.max === undefined) return { delayMs, maxMs: delayMs }
  throw invalidOption('breaker.probe.max', `it is ${describe(max)}; expected at least breaker.probe.delay`)
}
