import type { Source } from '../../engine.ts'
import { PosthornError } from '../../errors.ts'
import type { Supply } from '../fetching/supply.ts'
import type { Finisher } from '../settlement/finisher.ts'
import type { Abortable } from './abortable.ts'
import type { Overrun } from './overrun.ts'
import type { StepTools } from './steps.ts'

/** What single and batch handlers work with alike. */
export interface WorkTools extends StepTools {
  readonly supply: Supply
  readonly finisher: Finisher
  readonly overrun: Overrun
  readonly leases: Pick<Source, 'leasedUntilMs'>
  /** Something left the buffer. */
  onStarted(): void
  /** What was started had to wait, and begins only now: its time does, too. */
  onBegun(run: Abortable): void
  /** Something may have become startable that was not before. */
  onStartable(): void
}

/**
 * Of a run whose event was checked before its handler is called: throws why it was told to stop meanwhile. It is, if its
 * lease has ended: the process may have been stopped during the check for so long that others have the message by now.
 */
export function throwIfGivenUp(run: Abortable, { leases, environment, settings }: WorkTools): void {
  if (environment.clock.now() >= leases.leasedUntilMs) {
    const reason = 'it ended while the event was checked'
    run.abort(new PosthornError('POSTHORN_LEASE_LOST', { subscription: settings.subscription, reason }))
  }
  run.signal.throwIfAborted()
}
