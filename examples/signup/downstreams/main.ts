/**
 * Stand-ins for the outside world: real servers that speak the real protocols on free ports of this machine, slow as
 * the real ones are. Through the control address the experiment breaks and repairs them and asks whom they served:
 * `PUT` and `DELETE /<service>/broken`, `GET /served`.
 */
import { constants, setPriority } from 'node:os'
import { reportReady, whenAskedToStop } from '../child.ts'
import { type Answer, startFraud, startHttp, startSlack, startStripe } from './http.ts'
import { type Services, services } from './service.ts'
import { startSmtp } from './smtp.ts'

function control(method: string | undefined, path: string | undefined): Answer {
  if (method === 'GET' && path === '/served') return { status: 200, body: served() }
  const name = /^\/(\w+)\/broken$/.exec(path ?? '')?.[1]
  if (name === undefined || !Object.hasOwn(services, name)) return { status: 404, body: 'unknown' }
  services[name as keyof Services].broken = method === 'PUT'
  return { status: 200, body: {} }
}

const served = () =>
  Object.fromEntries(Object.entries(services).map(([name, { served }]) => [name, Object.fromEntries(served)]))

// They stand for other machines, whose work would take nothing from this one.
setPriority(constants.priority.PRIORITY_BELOW_NORMAL)

reportReady({
  SMTP_URL: await startSmtp(services.email),
  FRAUD_URL: await startFraud(services.fraud),
  STRIPE_BASE_URL: await startStripe(services.customers),
  SLACK_WEBHOOK_URL: await startSlack(services.slack),
  control: await startHttp((request) => control(request.method, request.url)),
})

whenAskedToStop(() => {})
