import type { Logger } from '../environment/index.ts'
import { errorFields } from './error-fields.ts'

/**
 * Closes the connection when the process is asked to end, then lets the signal do what it does without Posthorn,
 * unless somebody else listens to it. A second signal does not wait any longer. Returns what takes this back.
 */
export function closeOnSignals(
  signals: readonly NodeJS.Signals[],
  close: () => Promise<void>,
  logger: Logger,
): () => void {
  let closing = false
  const remove = () => {
    for (const signal of signals) process.off(signal, handle)
  }
  const passOn = (signal: NodeJS.Signals) => {
    remove()
    // Other connections may still be closing; the last one passes the signal on.
    if (process.listenerCount(signal) === 0) process.kill(process.pid, signal)
  }
  const handle = (signal: NodeJS.Signals) => {
    if (closing) return passOn(signal)
    closing = true
    close()
      .catch((error: unknown) =>
        logger.error('The connection could not be closed cleanly.', { signal, ...errorFields(error) }),
      )
      .finally(() => passOn(signal))
  }
  for (const signal of signals) process.on(signal, handle)
  return remove
}
