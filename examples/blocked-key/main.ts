import { connect, type SubscriptionState, topic } from 'posthorn'

interface Booking {
  readonly account: string
  readonly cents: number
}

const booked = topic<Booking>('account.booked', { key: ({ account }) => account })
await using post = await connect('sqlite:data/ledger.db')
const closedAccounts = new Set(['a1'])
const ledger: string[] = []

// #region subscribe
post.subscribe(
  booked,
  'ledger',
  async (event) => {
    const { account, cents } = event.data
    if (closedAccounts.has(account)) throw new Error(`Account ${account} is closed.`)
    ledger.push(`${account} ${cents}`)
  },
  {
    ordered: { onExhausted: 'block' },
    retry: { attempts: 2, backoff: { type: 'fixed', delay: '50ms', jitter: 'none' } },
  },
)
// #endregion

for (const account of ['a1', 'a2']) {
  for (const cents of [100, -20]) await post.publish(booked, { account, cents })
}
await until((state) => state.blockedKeys === 1 && state.parked === 1 && ledger.length === 2)
console.log(ledger.join(', '))

// #region look
const [state] = await post.admin.subscriptions(booked)
console.log(`blocked: ${state?.blockedKeys}, waiting behind it: ${state?.parked}`)
for await (const dead of post.admin.eachDeadLetter(booked, 'ledger')) {
  if (dead.blocking) console.log(`${dead.event?.subject}: ${dead.failures.at(-1)?.message}`)
}
// #endregion

closedAccounts.delete('a1')

// #region redrive
const [dead] = await post.admin.deadLetters(booked, 'ledger')
if (dead !== undefined) await post.admin.redrive(booked, 'ledger', { ids: [dead.id] })
// #endregion

await until(() => ledger.length === 4)
console.log(ledger.slice(2).join(', '))

closedAccounts.add('a2')
await post.publish(booked, { account: 'a2', cents: 1 })
await until((now) => now.blockedKeys === 1)
closedAccounts.clear()
await post.publish(booked, { account: 'a2', cents: 2 })
await until((now) => now.parked === 1)

// #region skip
const blocking = (await post.admin.deadLetters(booked, 'ledger')).filter((letter) => letter.blocking)
const ids = blocking.map(({ id }) => id)
await post.admin.deleteDeadLetters(booked, 'ledger', ids)
// #endregion

await until(() => ledger.length === 5)
console.log(ledger.slice(4).join(', '))

async function until(test: (state: SubscriptionState) => boolean): Promise<void> {
  for (;;) {
    const [now] = await post.admin.subscriptions(booked)
    if (now !== undefined && test(now)) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
