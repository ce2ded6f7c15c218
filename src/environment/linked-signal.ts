export interface LinkedSignal {
  readonly signal: AbortSignal
  /** The others are not listened to any more, and keep nothing of it. */
  unlink(): void
}

/**
 * A signal that aborts as soon as one of these does, for the same reason. In the place of `AbortSignal.any`, which in
 * Node.js 24 was seen to lose an abort now and then, when signals that it had made were put together again: what waited
 * for it waited for ever.
 */
export function linkSignals(...signals: readonly AbortSignal[]): LinkedSignal {
  const controller = new AbortController()
  const abort = () => controller.abort(signals.find(({ aborted }) => aborted)?.reason)
  if (signals.some(({ aborted }) => aborted)) abort()
  for (const signal of signals) signal.addEventListener('abort', abort, { once: true })
  return {
    signal: controller.signal,
    unlink() {
      for (const signal of signals) signal.removeEventListener('abort', abort)
    },
  }
}
