/**
 * What the example's processes have in common. Each is a child of `main.ts`: it says when it is ready, stops when the
 * channel to its parent closes (which happens however the parent ends, so that none is left behind), and leaves an
 * interrupt from the keyboard, which reaches the whole process group, to the parent.
 */
export function reportReady(details: object): void {
  process.send?.({ ready: details })
}

/** Runs `stop` once when the parent asks for it or is gone, and ends the process. */
export function whenAskedToStop(stop: () => Promise<void> | void): void {
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => {})
  process.once('disconnect', async () => {
    await stop()
    process.exit()
  })
}

/** The value after an option such as `--data`, which the parent always gives. */
export function argumentAfter(option: string): string {
  const value = process.argv[process.argv.indexOf(option) + 1]
  if (!process.argv.includes(option) || value === undefined) throw new Error(`The option ${option} is missing.`)
  return value
}
