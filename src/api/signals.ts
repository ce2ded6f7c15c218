/**
 * Closes connections when the process is asked to end.
 *
 * State: per signal, the connections that close on it. All connections of the process share one listener per signal,
 * which stands as long as there is one of them: Node warns of a leak when there are more than ten.
 */
import type { Logger } from '../environment/index.ts'
import { errorFields } from './error-fields.ts'

type SignalHandler = (signal: NodeJS.Signals) => void

const handlersBySignal = new Map<NodeJS.Signals, Set<SignalHandler>>()

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
    for (const signal of signals) removeHandler(signal, handle)
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
  for (const signal of signals) addHandler(signal, handle)
  return remove
}

function addHandler(signal: NodeJS.Signals, handler: SignalHandler): void {
  const handlers = handlersBySignal.get(signal) ?? new Set()
  if (handlers.size === 0) process.on(signal, handleAll)
  handlersBySignal.set(signal, handlers.add(handler))
}

function removeHandler(signal: NodeJS.Signals, handler: SignalHandler): void {
  const handlers = handlersBySignal.get(signal)
  if (handlers?.delete(handler) && handlers.size === 0) process.off(signal, handleAll)
}

function handleAll(signal: NodeJS.Signals): void {
  for (const handler of [...(handlersBySignal.get(signal) ?? [])]) handler(signal)
}
