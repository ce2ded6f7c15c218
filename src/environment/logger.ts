/** What may stand beside a log message: flat, serialisable, and named as in the docs. */
export type LogFields = Readonly<Record<string, unknown>>

/** The shape that pino, winston and console-like loggers can be fitted to in a line each. */
export interface Logger {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
}

/** Says nothing. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} }

/** Writes warnings and errors to standard error, one JSON object a line: the default. */
export const stderrLogger: Logger = {
  debug() {},
  info() {},
  warn: (message, fields) => write('warn', message, fields),
  error: (message, fields) => write('error', message, fields),
}

/**
 * A logger that never throws, nor leaves a rejected promise behind. What goes wrong in `logger` is dropped: there is
 * nobody left to tell, and deliveries must not depend on it.
 */
export function guardedLogger(logger: Logger): Logger {
  const guarded = (level: keyof Logger) => (message: string, fields?: LogFields) => {
    try {
      const logged: unknown = logger[level](message, fields)
      if (logged instanceof Promise) logged.catch(() => {})
    } catch {}
  }
  return { debug: guarded('debug'), info: guarded('info'), warn: guarded('warn'), error: guarded('error') }
}

function write(level: string, message: string, fields: LogFields = {}): void {
  process.stderr.write(`${JSON.stringify({ level, logger: 'posthorn', message, ...fields })}\n`)
}
