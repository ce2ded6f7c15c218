import type { ConsumerSettings } from '../../src/consumer/consumer.ts'
import { HeldHandler, startRig } from './harness.ts'

export const ordered = { ordered: { onExhausted: 'dead-letter' } } as const
export const blocking = { ordered: { onExhausted: 'block' } } as const

/** An ordered subscription whose handlers end when the test says so. */
export async function startHeld(changes: Partial<ConsumerSettings> = {}) {
  const handler = new HeldHandler()
  const rig = await startRig({ handle: handler.handle }, { ...ordered, ...changes })
  return { ...rig, handler }
}

/** Ends what is under way, so that closing does not have to wait. */
export async function finish({ consumer, handler }: Awaited<ReturnType<typeof startHeld>>): Promise<void> {
  const closed = consumer.close()
  for (const call of handler.calls) call.resolve()
  await closed
}
