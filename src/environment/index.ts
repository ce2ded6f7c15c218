import { type Clock, systemClock } from './clock.ts'
import { type Logger, stderrLogger } from './logger.ts'
import { type Random, systemRandom } from './random.ts'

export { type Clock, pause, systemClock, type Timer, type TimerOptions } from './clock.ts'
export { type LinkedSignal, linkSignals } from './linked-signal.ts'
export { guardedLogger, type LogFields, type Logger, silentLogger, stderrLogger } from './logger.ts'
export { OnceAMinute } from './once-a-minute.ts'
export { type Random, seededRandom, systemRandom } from './random.ts'

/** Everything that Posthorn takes from the world around it besides storage. */
export interface Environment {
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
}

/** The real clock, the system's randomness, and warnings on standard error. */
export const systemEnvironment: Environment = { clock: systemClock, random: systemRandom, logger: stderrLogger }
