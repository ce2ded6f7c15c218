/**
 * What the killed processes have in common. Each says when it works, and stops in good order when the channel to the
 * test closes, which happens however the test ends.
 */
export interface Assignment {
  readonly url: string
  readonly file: string
  readonly ledgerFolder: string
  readonly name: string
  readonly incarnation: number
  readonly seed: number
}

export const assignment = JSON.parse(process.argv[2] ?? '{}') as Assignment

export function reportReady(): void {
  process.send?.('ready')
}

export function whenAskedToStop(stop: () => Promise<void>): void {
  process.on('SIGINT', () => {})
  process.once('disconnect', async () => {
    await stop()
    process.exit()
  })
}
