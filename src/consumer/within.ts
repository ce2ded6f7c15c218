import type { Clock } from '../environment/index.ts'

/** Waits for `work` for at most `limitMs`: `true` when it resolved in time. Rejects when it rejected in time. */
export function within(clock: Clock, limitMs: number, work: Promise<unknown>): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const timer = clock.setTimer(limitMs, () => resolve(false))
    work.then(
      () => {
        timer.cancel()
        resolve(true)
      },
      (error) => {
        timer.cancel()
        reject(error)
      },
    )
  })
}
