/**
 * A process of the benchmark: makes actors and calls their methods as the measuring process asks for it, one answer a
 * request. It ends when the channel closes, however the other side came to its end, and leaves an interrupt from the
 * keyboard, which reaches both, to the other side.
 */
import { actorKinds, type Request, type Response } from './actors/index.ts'

type Methods = Readonly<Record<string, (...parameters: readonly unknown[]) => Promise<unknown>>>

const KIB_PER_MB = 1_000_000 / 1_024

const actors = new Map<number, object>()

function actorFor({ actor: number, kind }: Request): object {
  const actor = actors.get(number) ?? new actorKinds[kind]()
  actors.set(number, actor)
  return actor
}

async function answer(request: Request): Promise<void> {
  const { call, method, parameters } = request
  const actor = actorFor(request) as Methods
  const outcome = await actor[method]!(...parameters).then(
    (value) => ({ value }),
    (error: Error) => ({ problem: error.stack ?? error.message }),
  )
  const peakMb = process.resourceUsage().maxRSS / KIB_PER_MB
  process.send?.({ call, peakMb, ...outcome } satisfies Response)
}

process.on('SIGINT', () => {})
process.on('message', (request: Request) => void answer(request))
process.on('disconnect', () => process.exit())
